"""Reads bodies of requests and writes answers. Pure; the routes are in ``http``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Annotated, Any, Final

from fastapi.responses import Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from agentic_ray.errors import (
    IdempotencyError,
    InvalidArgumentError,
    InvalidParametersError,
    InvalidTypeError,
    JournalError,
    QueueFullError,
    ResultCorruptError,
    SerializationError,
    SessionError,
    UnknownJobError,
    UnknownWorkloadError,
)
from agentic_ray.master.checks import (
    KEY_LENGTH,
    LONGEST_SECONDS,
    MOST_TAGS,
    PRIORITY_LIMIT,
    TAG_LENGTH,
    TEXT_PATTERN,
)
from agentic_ray.master.jsonvalues import cut_name, dumps, loads, to_json, whole
from agentic_ray.master.named import register
from agentic_ray.master.named.uploads import UploadParams
from agentic_ray.master.workloads import DEFAULT, Parameters, Registry, sum_of_squares
from agentic_ray.shown import cut_text

STATUS_OF: Final[Mapping[type[Exception], int]] = {
    IdempotencyError: 409,
    JournalError: 503,
    ResultCorruptError: 500,
    InvalidParametersError: 422,
    InvalidArgumentError: 422,
    InvalidTypeError: 422,
    SerializationError: 422,
    UnknownWorkloadError: 422,
    UnknownJobError: 404,
    QueueFullError: 503,
    SessionError: 503,
}
"""HTTP status of each error that a request may end with."""


_SHOWN: Final = 10


class JsonResponse(Response):
    """Strict JSON in ASCII, so that no text in a result can break it."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dumps(content).encode("ascii")


class RequestError(Exception):
    """A request that is refused before it reaches the master."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = "RequestError",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})
        super().__init__(message)


def too_large(limit_bytes: int) -> RequestError:
    """The refusal of a body over the limit."""
    return RequestError(413, f"the body is larger than {limit_bytes} bytes", "BodyTooLarge")


def error_body(kind: str, message: str, status: int) -> dict[str, Any]:
    """The body of every answer that is an error, in the form of RFC 9457.

    ``error`` says the same in the form that clients of before read.
    """
    text = cut_text(message)
    return {
        "type": f"urn:agentic-ray:error:{kind}",
        "title": _title(kind),
        "status": status,
        "detail": text,
        "error": {"type": kind, "message": text},
    }


def problem(error: RequestError) -> Response:
    """The answer that is an error."""
    return ProblemResponse(
        error_body(error.kind, str(error), error.status), error.status, error.headers
    )


class ProblemResponse(JsonResponse):
    """An error as JSON."""

    media_type = "application/problem+json"


def _title(kind: str) -> str:
    """``QueueFullError`` as words."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.removesuffix("Error") or kind)
    return words[:1] + words[1:].lower()


_SHOWN_TEXT: Final[dict[str, Any]] = {"pattern": TEXT_PATTERN}
"""The pattern is for the description only: the master checks it, and says it in words."""
Tag = Annotated[str, Field(min_length=1, max_length=TAG_LENGTH, json_schema_extra=_SHOWN_TEXT)]
Name = Annotated[str, Field(min_length=1, max_length=KEY_LENGTH, json_schema_extra=_SHOWN_TEXT)]


class SubmitBody(BaseModel):
    """Body of ``POST /submit``: ``data`` for the default workload, or a workload with params."""

    model_config = ConfigDict(extra="forbid", strict=True)

    data: Any = None
    workload: str = DEFAULT
    params: Any = None
    priority: Annotated[
        int, Field(ge=-PRIORITY_LIMIT, le=PRIORITY_LIMIT), BeforeValidator(whole)
    ] = 0
    timeout_seconds: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS)
    deadline_seconds: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS)
    user: Name | None = None
    idempotency_key: Name | None = None
    cache: bool = True
    tags: list[Tag] = Field(default=[], max_length=MOST_TAGS)


_FIELDS: Final = tuple(SubmitBody.model_fields)


@dataclass(frozen=True, slots=True)
class Submission:
    """A body of ``POST /submit`` that was read: its parameters, and the other fields.

    ``has_refs``: uploaded data may be meant by something in the parameters.
    """

    parameters: Parameters
    body: SubmitBody
    has_refs: bool = False


def idempotency_key(header: str | None, body: str | None) -> str | None:
    """The key given in the header ``Idempotency-Key``, in the body, or the same in both.

    Raises
    ------
    RequestError
        The two differ.
    """
    if header is not None and body is not None and header != body:
        raise RequestError(
            409, "the header Idempotency-Key and idempotency_key differ", "IdempotencyError"
        )
    return body if header is None else header


def read_submission(body: bytes, builtin: Set[str] = frozenset()) -> Submission:
    """Parse and check the body of ``POST /submit``.

    Parameters
    ----------
    builtin : set of str
        The workloads that are those which every service has: parameters that do not fit them are
        refused here already, before more is made of them.

    Raises
    ------
    RequestError
        400: not strict JSON. 422: not of the right form; the message names the fields.
    """
    try:
        content = loads(body)
    except InvalidArgumentError as error:
        raise RequestError(400, str(error), "InvalidJson") from None
    if not isinstance(content, dict):
        raise RequestError(422, f"the body must be a JSON object, not {_json_name(content)}")
    strange = [*islice((name for name in content if name not in _FIELDS), _SHOWN)]
    if strange:
        more = ", ..." if len(strange) == _SHOWN else ""
        named = ", ".join(map(cut_name, strange)) + more
        raise RequestError(422, f"{named}: not a field; there are {', '.join(_FIELDS)}")
    params = _params_of(content)
    try:
        # (Not the parameters: they are anything, and may be large.)
        rest = {name: value for name, value in content.items() if name not in ("data", "params")}
        checked = SubmitBody.model_validate(rest)
    except ValidationError as error:
        described = [
            f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}"
            for entry in error.errors(include_url=False, include_input=False)
        ]
        raise RequestError(422, "; ".join(described[:_SHOWN])) from None
    try:
        has_refs = _has_refs(params)
        if checked.workload in builtin and not has_refs:
            _named().get(checked.workload).refuse(params)
        return Submission(Parameters.of_read(params), checked, has_refs)
    except (InvalidParametersError, SerializationError) as error:
        raise RequestError(422, str(error), InvalidParametersError.__name__) from None


@cache
def _named() -> Registry:
    """The workloads that every service has, in whatever process this is."""
    made = Registry()
    made.register(DEFAULT, sum_of_squares, builtin=True)
    register(made)
    return made


def is_ref(value: Mapping[str, Any]) -> bool:
    """Whether this names uploaded data."""
    return value.keys() == {"ref"} and isinstance(value["ref"], str)


def is_resolved(value: Mapping[str, Any]) -> bool:
    """Whether this is what the service makes of that, see `UploadParams`."""
    return value.keys() == UploadParams.__annotations__.keys()


def _has_refs(params: Any) -> bool:
    """Whether some object that is in objects only names uploaded data."""
    if not isinstance(params, dict):
        return False
    return is_ref(params) or is_resolved(params) or any(_has_refs(each) for each in params.values())


def _params_of(content: Mapping[str, Any]) -> Any:
    if "data" in content:
        if "params" in content or "workload" in content:
            raise RequestError(
                422,
                "give either data (for the default workload) or workload and params, not both",
            )
        return {"data": content["data"]}
    if "params" not in content:
        missing = "params" if "workload" in content else "data, or workload and params"
        raise RequestError(422, f"the body lacks {missing}")
    return content["params"]


def is_json(content_type: str | None) -> bool:
    """Whether a Content-Type says JSON, in UTF-8 if it says which."""
    if content_type is None:
        return False
    media, *parameters = (part.strip().lower() for part in content_type.split(";"))
    charsets = [p.partition("=")[2].strip('"') for p in parameters if p.startswith("charset=")]
    return media == "application/json" and all(name in ("utf-8", "utf8") for name in charsets)


def plain(content: Any) -> Any:
    """``content`` as plain JSON types, for answers that did not come from a job."""
    return to_json(content, name="answer")


def _json_name(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
