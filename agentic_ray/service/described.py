"""Describes each route for the OpenAPI document: answers, errors, examples. Data only."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Final

from agentic_ray.master import Workload
from agentic_ray.master.checks import KEY_LENGTH, TEXT_PATTERN
from agentic_ray.master.named.uploads import UploadParams
from agentic_ray.master.workloads import DEFAULT
from agentic_ray.service.bodies import SubmitBody
from agentic_ray.service.content import ARROW, JSON, NPY, PARQUET

_ID: Final = "0123456789abcdef0123456789abcdef"

_ERROR: Final = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string", "pattern": "^urn:agentic-ray:error:"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
    },
    "example": {
        "type": "urn:agentic-ray:error:UnknownJobError",
        "title": "Unknown job",
        "status": 404,
        "detail": "no job 'x'; it never was, or is forgotten",
        "error": {
            "type": "UnknownJobError",
            "message": "no job 'x'; it never was, or is forgotten",
        },
    },
}
_ABOUT: Final = {
    400: "The request is broken: not JSON, a header twice.",
    401: "The token is missing, wrong or expired.",
    403: "The token may not do this, or a page of another site asks.",
    404: "No such job, data or address; also what belongs to others.",
    406: "The result does not have the form that Accept asks for.",
    408: "The body did not come in time.",
    409: "The key was used for another job, the job has not ended so, or a checksum differs.",
    413: "The body is too large.",
    415: "The body is not of a type or encoding that is taken.",
    416: "The result does not have the bytes that Range asks for.",
    421: "Without a token only requests to localhost are answered.",
    422: "Fields or parameters do not fit; the message names them.",
    429: "Too many requests with this token; Retry-After says when to go on.",
    500: "A fault of the service; its log has more.",
    503: "The queue is full, the journal cannot be written, or Ray is starting; see Retry-After.",
    507: "There is no room for the data.",
}
_ALWAYS: Final = (400, 401, 403, 413, 415, 421, 429, 500, 503)
_JOB: Final = {
    "type": "object",
    "required": ["task_id", "state", "workload", "error"],
    "properties": {
        "task_id": {"type": "string"},
        "state": {"enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
        "workload": {"type": "string"},
        "version": {"type": "string"},
        "priority": {"type": "integer"},
        "created_at": {"type": "number"},
        "started_at": {"type": ["number", "null"]},
        "finished_at": {"type": ["number", "null"]},
        "timeout_seconds": {"type": ["number", "null"]},
        "deadline_at": {"type": ["number", "null"]},
        "user": {"type": "string"},
        "attempts": {"type": "integer"},
        "cached": {"type": "boolean"},
        "cancel_requested": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "retry_of": {"type": ["string", "null"]},
        "request_id": {"type": ["string", "null"]},
        "error": {
            "type": ["object", "null"],
            "properties": {"type": {"type": "string"}, "message": {"type": "string"}},
        },
        "metrics": {"type": ["object", "null"]},
        "result": {},
    },
}
_ENTRY: Final = {
    "type": "object",
    "required": ["name", "format", "size", "sha256", "created_at"],
    "properties": {
        "name": {"type": "string"},
        "format": {"enum": ["npy", "arrow", "parquet", "csv", "txt"]},
        "size": {"type": "integer"},
        "sha256": {"type": "string"},
        "created_at": {"type": "number"},
    },
    "example": {
        "name": "trips.parquet",
        "format": "parquet",
        "size": 1000,
        "sha256": "0" * 64,
        "created_at": 1.7e9,
    },
}


_REF: Final = {
    "type": "object",
    "properties": {"ref": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}},
    "required": ["ref"],
    "additionalProperties": False,
}


def submit_schema(workloads: Mapping[str, Workload]) -> dict[str, Any]:
    """The schema of the body of ``POST /submit``: one form for each workload."""
    schema = SubmitBody.model_json_schema()
    common = {n: s for n, s in schema["properties"].items() if n not in _OWN}
    forms = []
    for name, workload in sorted(workloads.items()):
        params = _outside(workload.json_schema or {})
        own = {"workload": {"const": name}, "params": params}
        forms.append(_form(name, own | common, [] if name == DEFAULT else ["workload"], "params"))
        if name == DEFAULT:
            data = params.get("properties", {}).get("data", {})
            data = {"anyOf": [data, _REF]} if workload.builtin else data
            forms.append(_form("data", {"data": data} | common, [], "data"))
    return {"oneOf": forms}


def without_null(document: dict[str, Any]) -> None:
    """Say in an OpenAPI document of parameters in queries what they are if they are there: a text
    in a query cannot be null."""
    for routes in document["paths"].values():
        for route in routes.values():
            for parameter in route.get("parameters", ()):
                schema = parameter["schema"]
                kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
                if len(kinds) == 1:
                    del schema["anyOf"]
                    schema |= kinds[0]


def require_tokens(document: dict[str, Any], open_paths: Set[str]) -> None:
    """Say in an OpenAPI document that every address but these needs a token."""
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {"type": "http", "scheme": "bearer"}
    document["security"] = [{"token": []}]
    for path in open_paths & document["paths"].keys():
        for route in document["paths"][path].values():
            route["security"] = []


_OWN: Final = ("data", "workload", "params")


def _form(title: str, properties: dict[str, Any], first: list[str], second: str) -> dict[str, Any]:
    return {
        "type": "object",
        "title": title,
        "properties": properties,
        "required": [*first, second],
        "additionalProperties": False,
    }


def _outside(schema: Any) -> Any:
    """A schema of parameters as they are sent: uploaded data by its name, and no references."""
    definitions = schema.get("$defs", {}) if isinstance(schema, dict) else {}

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            return _REF if name == UploadParams.__name__ else resolved(definitions.get(name, {}))
        return {name: resolved(each) for name, each in part.items() if name != "$defs"}

    return resolved(schema)


def _json(schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"content": {"application/json": content}}


def _route(
    summary: str, status: int, answer: dict[str, Any], *errors: int, **more: Any
) -> dict[str, Any]:
    responses: dict[int | str, dict[str, Any]] = {
        code: {
            "description": _ABOUT[code],
            "content": {"application/problem+json": {"schema": _ERROR}},
        }
        for code in sorted({*_ALWAYS, *errors})
    }
    responses[status] = {"description": "Done."} | answer
    return {"summary": summary, "status_code": status, "responses": responses} | more


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": [*properties], "properties": properties}


_TEXT: Final = {"type": "string"}
_COUNT: Final = {"type": "integer"}
_LOCATION: Final = {
    "headers": {"Location": {"description": "Where to ask for it.", "schema": _TEXT}}
}

SUBMIT: Final = _route(
    "Submit a job",
    202,
    _json(_object(task_id=_TEXT), {"task_id": _ID}) | _LOCATION,
    404,
    408,
    409,
    422,
    openapi_extra={
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "The same submit with the same key is the same job.",
                "schema": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": KEY_LENGTH,
                    "pattern": TEXT_PATTERN,
                },
            }
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": SubmitBody.model_json_schema(),
                    "examples": {
                        "numbers": {"value": {"data": [1, 2, 3, 4, 5]}},
                        "uploaded": {"value": {"data": {"ref": "numbers.npy"}}},
                        "workload": {
                            "value": {
                                "workload": "word_count",
                                "params": {"data": ["to be or not to be"]},
                                "priority": 1,
                                "timeout_seconds": 60,
                                "tags": ["texts"],
                            }
                        },
                    },
                }
            },
        },
    },
)
STATUS: Final = _route("What is known of a job, with its result", 200, _json(_JOB), 404, 422)
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_UPLOAD: Final = {"schema": _BINARY["schema"] | {"minLength": 1}}
_FORMS: Final = {JSON: {"schema": {}}, NPY: _BINARY, ARROW: _BINARY, PARQUET: _BINARY}
RESULT: Final = _route(
    "The result of a job, in the form that Accept asks for, whole or in part",
    200,
    {"content": _FORMS},
    404,
    406,
    409,
    416,
    422,
)
RESULT["responses"][206] = {"description": "A part of it.", "content": _FORMS}
_LIST: Final = _object(
    jobs={"type": "array", "items": _JOB},
    total={"type": ["integer", "null"]},
    next={"type": ["string", "null"]},
)
JOBS: Final = _route("The jobs, newest first, by pages", 200, _json(_LIST), 422)
LOGS: Final = _route(
    "What a job printed, from a line on",
    200,
    _json(
        _object(
            lines={"type": "array", "items": {"type": "object"}},
            next=_COUNT,
            finished={"type": "boolean"},
        )
    ),
    404,
    422,
)
CANCEL: Final = _route(
    "Cancel a job; one that has ended stays as it is", 200, _json(_JOB), 404, 422
)
RETRY: Final = _route(
    "Submit again what an ended job was submitted with",
    202,
    _json(_object(task_id=_TEXT, retry_of=_TEXT), {"task_id": _ID, "retry_of": _ID}) | _LOCATION,
    404,
    409,
    422,
)
WORKLOADS: Final = _route(
    "The workloads there are, with the JSON schemas of their parameters",
    200,
    _json(_object(workloads={"type": "array", "items": {"type": "object"}})),
)
PUT_DATA: Final = _route(
    "Upload data for jobs",
    201,
    _json(_ENTRY) | _LOCATION,
    404,
    408,
    409,
    422,
    507,
    openapi_extra={
        "parameters": [
            {
                "name": "Content-Digest",
                "in": "header",
                "required": False,
                "description": "The SHA-256 of the body in base64, which is compared (RFC 9530).",
                "schema": {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
            }
        ],
        "requestBody": {
            "required": True,
            "content": dict.fromkeys((NPY, ARROW, PARQUET, "text/csv", "text/plain"), _UPLOAD),
        },
    },
)
LIST_DATA: Final = _route(
    "The data that one has uploaded",
    200,
    _json(_object(data={"type": "array", "items": _ENTRY})),
)
GET_DATA: Final = _route("What is known of uploaded data", 200, _json(_ENTRY), 404, 422)
DELETE_DATA: Final = _route("Forget uploaded data", 204, {}, 404, 422)
_HEALTH: Final = _object(status={"enum": ["ok", "starting", "degraded", "draining"]})
HEALTH: Final = _route("Whether the service is alive", 200, _json(_HEALTH, {"status": "ok"}))
READY: Final = _route("Whether jobs run", 200, _json(_HEALTH, {"status": "ok"}))
READY["responses"][503] = {"description": "They wait; `status` says why."} | _json(_HEALTH)
CLUSTER: Final = _route("Nodes, processors, memory, GPUs", 200, _json({"type": "object"}))
_STREAM: Final = {"content": {"text/event-stream": {"schema": _TEXT}}}
EVENTS: Final = _route(
    "Follow the steps of all jobs, as server-sent events",
    200,
    _STREAM,
    422,
)
EVENTS_OF: Final = _route("Follow one job until it ends", 200, _STREAM, 404, 422)
METRICS: Final = _route(
    "Figures for Prometheus", 200, {"content": {"text/plain": {"schema": _TEXT}}}
)
