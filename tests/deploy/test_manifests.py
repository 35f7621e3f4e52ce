"""The manifests of deploy/kubernetes and of the chart: their schemas, and what they refer to."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from deploy_manifests import (
    ROOT,
    Document,
    Pod,
    helmed,
    kustomized,
    output,
    pods,
    program,
    quantity,
)
from deploy_schemas import SPECS

OVERLAYS = ["plain", "plain-gpu", "kuberay", "production"]
VERSIONS = ["1.27", "1.37"]  # the oldest that the chart takes, and the newest known

EVERYTHING = (
    "gcsFaultTolerance.enabled=true",
    "monitoring.enabled=true",
    "ingress.enabled=true",
    "ingress.className=nginx",
    "ingress.host=ray.example",
    "ingress.tlsSecret=ray-tls",
    "ingress.annotations.a=b",
    "networkPolicy.from[0].namespaceSelector.matchLabels.name=ingress",
    "journal.storageClass=fast",
    "gcsFaultTolerance.redis.storageClass=fast",
    "image.pullSecrets[0]=registry",
    "image.tag=9.9.9",
    "master.options[0]=--max-running=4",
    "master.env[0].name=A",
    "master.env[0].value=b",
    "master.nodeSelector.disk=fast",
    "head.nodeSelector.disk=fast",
    "workers.gpu.nodeSelector.gpu=h200",
)
ELSEWHERE = (
    "gcsFaultTolerance.enabled=true",
    "gcsFaultTolerance.redisAddress=redis.data:6380",
    "token.existingSecret=agentic-ray",
    "journal.existingClaim=jobs",
)
BARE = (
    "journal.enabled=false",
    "networkPolicy.enabled=false",
    "autoscaling.enabled=false",
    "workers.gpu=null",
)

RENDERED: dict[str, Callable[[], tuple[Document, ...]]] = {
    **{name: lambda name=name: kustomized(f"overlays/{name}") for name in OVERLAYS},
    "jobs": lambda: kustomized("jobs"),
    "chart": lambda: helmed("agentic-ray"),
    "chart, everything": lambda: helmed("team", *EVERYTHING),
    "chart, elsewhere": lambda: helmed("team", *ELSEWHERE),
    "chart, bare": lambda: helmed("team", *BARE),
}


@pytest.fixture(params=RENDERED)
def rendered(request: pytest.FixtureRequest) -> tuple[Document, ...]:
    return RENDERED[request.param]()


def named(documents: tuple[Document, ...], kind: str) -> dict[str, Document]:
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def test_every_document_meets_its_schema(rendered: tuple[Document, ...]) -> None:
    counted = Counter((d["kind"], d["metadata"]["name"]) for d in rendered)
    assert [key for key, count in counted.items() if count > 1] == []
    for document in rendered:
        spec = SPECS.get((document["apiVersion"], document["kind"]))
        if spec is not None:
            jsonschema.validate(document["spec"], spec)
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    for pod in pods(rendered):
        for version in VERSIONS:
            template = {"apiVersion": "v1", "kind": "PodTemplate", "template": pod.template}
            kubernetes_validate.validate(template, version, strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    (cluster,) = named(kustomized("overlays/kuberay"), "RayCluster").values()
    spec = SPECS["ray.io/v1", "RayCluster"]
    wrong: list[dict[str, Any]] = [
        {"headGroupSpecs": {}},
        {"gcsFaultToleranceOptions": {"redis": "r:1"}},
        {"enableInTreeAutoscaling": "yes"},
        {"workerGroupSpecs": [{"groupName": "a", "template": {}}]},
    ]
    for change in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(cluster["spec"] | change, spec)


def test_whatever_is_referred_to_is_there(rendered: tuple[Document, ...]) -> None:
    secrets = named(rendered, "Secret")
    configs, claims = named(rendered, "ConfigMap"), named(rendered, "PersistentVolumeClaim")
    accounts = named(rendered, "ServiceAccount")

    def check_secret(reference: Document) -> None:
        # Where there is none in the documents, the user has made it, as the texts say.
        assert reference["name"] in secrets or reference["name"] == "agentic-ray"
        assert reference["key"] in {"http_token", "auth_token", "redis_password"}
        if reference["name"] in secrets:
            assert reference["key"] in secrets[reference["name"]]["data"]

    def check(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("secretKeyRef", "credentials"):
                    check_secret(inner)
                elif key == "secretName" and isinstance(inner, str) and inner != "ray-tls":
                    assert inner in secrets or inner == "agentic-ray"
                elif key == "configMap":
                    assert inner["name"] in configs
                elif key == "claimName":
                    assert inner in claims or inner == "jobs"
                elif key == "serviceAccountName":
                    assert inner in accounts
                check(inner)
        elif isinstance(value, list):
            for inner in value:
                check(inner)

    check(list(rendered))


def selected(labels: dict[str, str], among: list[Pod]) -> list[Pod]:
    return [pod for pod in among if labels.items() <= pod.labels.items()]


def test_selectors_select_and_ports_are_there(rendered: tuple[Document, ...]) -> None:
    among = list(pods(rendered))
    assert among
    for service in named(rendered, "Service").values():
        found = selected(service["spec"]["selector"], among)
        assert len(found) == 1, service
        for port in service["spec"]["ports"]:
            assert port.get("targetPort", port["name"]) in found[0].ports
    for budget in named(rendered, "PodDisruptionBudget").values():
        assert selected(budget["spec"]["selector"]["matchLabels"], among)
    for policy in named(rendered, "NetworkPolicy").values():
        found = selected(policy["spec"]["podSelector"]["matchLabels"], among)
        assert found, policy
        for rule in policy["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                assert all(port["port"] in pod.ports for pod in found)
    for kind in ("Deployment", "StatefulSet"):
        labels = [
            workload["spec"]["selector"]["matchLabels"]
            for workload in named(rendered, kind).values()
        ]
        for one in labels:
            assert len(selected(one, among)) == 1, f"two workloads share the pods of {one}"
    services = named(rendered, "Service")
    for monitor in named(rendered, "ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = (
            s for s in services.values() if wanted <= s["metadata"].get("labels", {}).items()
        )
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    for ingress in named(rendered, "Ingress").values():
        assert ingress["spec"]["tls"]
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                assert path["backend"]["service"]["name"] in services


def test_the_cluster_is_closed_to_others(rendered: tuple[Document, ...]) -> None:
    policies = named(rendered, "NetworkPolicy")
    if not policies:
        return
    (cluster,) = (policy for name, policy in policies.items() if name.endswith("-cluster"))
    assert set(cluster["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    covered = selected(cluster["spec"]["podSelector"]["matchLabels"], list(pods(rendered)))
    assert len(covered) == len(list(pods(rendered))), "a pod is not part of the cluster's policy"
    for policy in policies.values():
        for rule in policy["spec"].get("ingress", []):
            assert rule.get("from"), "open to everybody"


def test_pods_may_do_no_more_than_they_need(rendered: tuple[Document, ...]) -> None:
    for pod in pods(rendered):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"]
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        # Only the head's pod speaks to Kubernetes, when the operator's autoscaler is in it.
        if not pod.labels.get("app.kubernetes.io/name", "").endswith("-head"):
            assert pod.spec["automountServiceAccountToken"] is False
        volumes = (
            {volume["name"]: volume for volume in pod.spec["volumes"]}
            if ("volumes" in pod.spec)
            else {}
        )
        for container in pod.containers:
            allowed = container["securityContext"]
            assert allowed["allowPrivilegeEscalation"] is False
            assert allowed["readOnlyRootFilesystem"] is True
            assert allowed["capabilities"] == {"drop": ["ALL"]}
            resources = container["resources"]
            assert set(resources["requests"]) >= {"cpu", "memory"} <= set(resources["limits"])
            memory = quantity(resources["limits"]["memory"])
            for mount in container["volumeMounts"]:
                folder = volumes.get(mount["name"], {}).get("emptyDir", {})
                if folder.get("medium") == "Memory":
                    assert quantity(folder["sizeLimit"]) <= memory / 2
            assert re.fullmatch(r"[a-z./-]+:\d+\.\d+\.\d+(-[a-z0-9]+)?", container["image"])


def test_containers_that_nobody_else_watches_have_probes(rendered: tuple[Document, ...]) -> None:
    from agentic_ray.service.guard import OPEN_PATHS

    for kind in ("Deployment", "StatefulSet"):
        for name, workload in named(rendered, kind).items():
            for container in workload["spec"]["template"]["spec"]["containers"]:
                for probe in ("readinessProbe", "livenessProbe"):
                    asked = container[probe].get("httpGet")
                    if asked is not None and asked["port"] == "http":
                        # No other path is answered without the token.
                        assert asked["path"] in OPEN_PATHS, name


def test_groups_of_workers_and_their_gpus(rendered: tuple[Document, ...]) -> None:
    clusters = [d["spec"] for d in rendered if d["kind"] == "RayCluster"]
    clusters += [d["spec"]["rayClusterSpec"] for d in rendered if d["kind"] == "RayJob"]
    for cluster in clusters:
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert cluster["authOptions"]["mode"] == "token"
        for group in cluster["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            (container,) = group["template"]["spec"]["containers"]
            gpus = container["resources"]["limits"].get("nvidia.com/gpu", "0")
            assert (int(gpus) > 0) == (group["groupName"] == "gpu")
            assert ("-cuda" in container["image"]) == (group["groupName"] == "gpu")
    (cluster,) = named(kustomized("overlays/kuberay"), "RayCluster").values()
    assert [group["groupName"] for group in cluster["spec"]["workerGroupSpecs"]] == ["cpu", "gpu"]


def test_no_secret_is_in_the_repository() -> None:
    program("kubectl")
    for overlay in [*(f"overlays/{name}" for name in OVERLAYS), "jobs"]:
        assert named(kustomized(overlay), "Secret") == {}


def test_the_head_keeps_its_state_in_redis_where_that_is_asked_for() -> None:
    def of(documents: tuple[Document, ...]) -> tuple[str | None, bool, bool]:
        (cluster,) = named(documents, "RayCluster").values()
        options = cluster["spec"].get("gcsFaultToleranceOptions", {})
        (master,) = named(documents, "Deployment").values()
        (container,) = master["spec"]["template"]["spec"]["containers"]
        waits = {one["name"] for one in container["env"]}
        return (
            options.get("redisAddress"),
            "RAY_gcs_rpc_server_reconnect_timeout_s" in waits,
            bool(named(documents, "StatefulSet")),
        )

    assert of(kustomized("overlays/kuberay")) == (None, False, False)
    assert of(kustomized("overlays/production")) == ("agentic-ray-redis:6379", True, True)
    assert of(helmed("team")) == (None, False, False)
    assert of(helmed("team", *EVERYTHING)) == ("team-agentic-ray-redis:6379", True, True)
    assert of(helmed("team", *ELSEWHERE)) == ("redis.data:6380", True, False)
    policy = named(helmed("team", *ELSEWHERE), "NetworkPolicy")["team-agentic-ray-cluster"]
    ports = [p["port"] for rule in policy["spec"]["egress"] for p in rule.get("ports", [])]
    assert 6380 in ports


def without_labels(value: Any) -> Any:
    """The value without labels, by which alone chart and overlay differ."""
    if isinstance(value, dict):
        return {
            key: without_labels(inner)
            for key, inner in value.items()
            if key not in ("labels", "namespaceSelector") or inner == {}
        }
    if isinstance(value, list):
        return [without_labels(inner) for inner in value]
    return value


@pytest.mark.parametrize(
    ("overlay", "settings"),
    [
        ("kuberay", ()),
        ("production", ("gcsFaultTolerance.enabled=true", "monitoring.enabled=true")),
    ],
)
def test_chart_and_overlay_say_the_same(overlay: str, settings: tuple[str, ...]) -> None:
    overlaid, charted = kustomized(f"overlays/{overlay}"), helmed("agentic-ray", *settings)
    for kind in ("RayCluster", "Deployment", "StatefulSet", "ServiceAccount"):
        ours, theirs = named(overlaid, kind), named(charted, kind)
        assert set(ours) == set(theirs)
        for name in ours:
            sides = [_in_order(without_labels(one[name].get("spec", {}))) for one in (ours, theirs)]
            assert sides[0] == sides[1], name
    for name, config in named(overlaid, "ConfigMap").items():
        assert named(charted, "ConfigMap")[name]["data"] == config["data"]


def _in_order(value: Any) -> Any:
    """Lists of named things by name: their order says nothing."""
    if isinstance(value, dict):
        return {key: _in_order(inner) for key, inner in value.items()}
    if isinstance(value, list):
        inner = [_in_order(one) for one in value]
        if all(isinstance(one, dict) and "name" in one for one in inner):
            return sorted(inner, key=lambda one: str(one["name"]))
        return inner
    return value


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("ingress.enabled=true", "host"),
        ("workers.gpu.replicas=3", "minReplicas <= replicas <= maxReplicas"),
        ("workers.gpu.memory=lots", "memory"),
        ("worker.cpu.replicas=3", "worker"),
        ("gcsFaultTolerance.redisAddress=redis", "redisAddress"),
    ],
)
def test_values_that_make_no_sense_are_refused(setting: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(complaint)):
        helmed("team", setting)


def test_the_chart_passes_helms_own_checks() -> None:
    output(program("helm"), "lint", "--strict", str(ROOT / "deploy" / "helm" / "agentic-ray"))


def test_versions_are_those_of_the_package_and_of_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = (ROOT / "deploy" / "docker" / "constraints-cpu.txt").read_text()
    (ray,) = re.findall(r"^ray==([\d.]+)$", locked, re.MULTILINE)
    for name, render in RENDERED.items():
        for pod in pods(render()):
            for container in pod.containers:
                if container["image"].startswith("agentic-ray:") and name != "chart, everything":
                    tag = container["image"].partition(":")[2]
                    assert tag.partition("-")[0] == project["version"]
        for document in render():
            spec = document.get("spec", {})
            spec = spec.get("rayClusterSpec", spec)
            if "rayVersion" in spec:
                assert spec["rayVersion"] == ray
