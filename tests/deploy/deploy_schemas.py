"""Schemas of the custom resources that our manifests use, for `jsonschema`.

KubeRay's own definitions of these two kinds have 1.7 MB, nearly all of it Kubernetes' pod template
over and over. Here are KubeRay's fields (operator 1.6), and no others are let through; pod
templates are checked by Kubernetes' schema, see `test_manifests.py`.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
ANYTHING: Final[Schema] = {"type": "object"}


def record(*required: str, **fields: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(required),
        "additionalProperties": False,
    }


def one_of(*values: str) -> Schema:
    return {"enum": list(values)}


def list_of(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


CREDENTIAL: Final = record(
    value=TEXT,
    valueFrom=record(
        secretKeyRef=record("key", "name", key=TEXT, name=TEXT, optional=FLAG),
    ),
)

CLUSTER: Final = record(
    "headGroupSpec",
    authOptions=record(enableK8sTokenAuth=FLAG, mode=one_of("disabled", "token"), secretName=TEXT),
    autoscalerOptions=record(
        env=list_of(ANYTHING),
        envFrom=list_of(ANYTHING),
        idleTimeoutSeconds=COUNT,
        image=TEXT,
        imagePullPolicy=one_of("Always", "IfNotPresent", "Never"),
        resources=ANYTHING,
        securityContext=ANYTHING,
        upscalingMode=one_of("Default", "Aggressive", "Conservative"),
        version=one_of("v1", "v2"),
        volumeMounts=list_of(ANYTHING),
    ),
    enableInTreeAutoscaling=FLAG,
    gcsFaultToleranceOptions=record(
        "redisAddress",
        externalStorageNamespace=TEXT,
        redisAddress=TEXT,
        redisPassword=CREDENTIAL,
        redisUsername=CREDENTIAL,
    ),
    headGroupSpec=record(
        "template",
        enableIngress=FLAG,
        headService=ANYTHING,
        labels=TEXTS,
        rayStartParams=TEXTS,
        resources=TEXTS,
        serviceType=TEXT,
        template=ANYTHING,
    ),
    headServiceAnnotations=TEXTS,
    managedBy=TEXT,
    rayVersion=TEXT,
    suspend=FLAG,
    upgradeStrategy=record(type=one_of("Recreate", "None")),
    workerGroupSpecs=list_of(
        record(
            "groupName",
            "maxReplicas",
            "minReplicas",
            "template",
            groupName=TEXT,
            idleTimeoutSeconds=COUNT,
            labels=TEXTS,
            maxReplicas=COUNT,
            minReplicas=COUNT,
            numOfHosts=COUNT,
            rayStartParams=TEXTS,
            replicas=COUNT,
            resources=TEXTS,
            scaleStrategy=record(workersToDelete=list_of(TEXT)),
            suspend=FLAG,
            template=ANYTHING,
        )
    ),
)

JOB: Final = record(
    activeDeadlineSeconds=COUNT,
    backoffLimit=COUNT,
    clusterSelector=TEXTS,
    deletionStrategy=ANYTHING,
    entrypoint=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    entrypointResources=TEXT,
    jobId=TEXT,
    managedBy=TEXT,
    metadata=TEXTS,
    preRunningDeadlineSeconds=COUNT,
    rayClusterSpec=CLUSTER,
    runtimeEnvYAML=TEXT,
    shutdownAfterJobFinishes=FLAG,
    submissionMode=one_of("K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"),
    submitterConfig=record(backoffLimit=COUNT),
    submitterPodTemplate=ANYTHING,
    suspend=FLAG,
    ttlSecondsAfterFinished=COUNT,
)

MONITOR: Final = record(
    "selector",
    "endpoints",
    selector=record("matchLabels", matchLabels=TEXTS),
    endpoints=list_of(
        record(
            "port",
            port=TEXT,
            path=TEXT,
            interval={"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
            authorization=record(type=TEXT, credentials=record("key", "name", key=TEXT, name=TEXT)),
        )
    ),
)

SPECS: Final = {
    ("ray.io/v1", "RayCluster"): CLUSTER,
    ("ray.io/v1", "RayJob"): JOB,
    ("monitoring.coreos.com/v1", "ServiceMonitor"): MONITOR,
}
