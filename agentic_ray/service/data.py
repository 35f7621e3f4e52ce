"""`DataShelf`: files that users have uploaded, by owner and name, for jobs to work on.

A file is kept under the hash of its content. A job that names it gets that hash with its
parameters, so it works on what was there when it was submitted, or fails.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import FastAPI, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from agentic_ray.errors import JournalError
from agentic_ray.master.jsonvalues import cut_name, loads
from agentic_ray.master.named.uploads import FOLDER, FORMATS, Upload, owner_folder, read_rows
from agentic_ray.master.private import open_private, private_folder
from agentic_ray.master.workloads import Parameters
from agentic_ray.service import described
from agentic_ray.service.access import Caller, caller_of
from agentic_ray.service.bodies import (
    JsonResponse,
    RequestError,
    is_ref,
    is_resolved,
    plain,
    too_large,
)
from agentic_ray.service.reading import Reader

UPLOAD_BYTES: Final = 1 << 30
OWNER_BYTES: Final = 10 << 30

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
Name = Annotated[str, PathParameter(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
_PART_SECONDS: Final = 60.0
_DRAFT_SECONDS: Final = 15 * _PART_SECONDS
_MEDIA: Final[Mapping[str, str]] = {
    "application/x-npy": "npy",
    "application/vnd.apache.arrow.stream": "arrow",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.parquet": "parquet",
    "text/csv": "csv",
    "text/plain": "txt",
}


Noted = Callable[[Caller, str, str], None]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a user."""

    name: str
    format: str
    size: int
    sha256: str
    created_at: float


class DataShelf:
    """The files in a folder; safe to use from any thread.

    Jobs find them by the environment, so it has to be there before the processes of jobs are.

    Parameters
    ----------
    folder : path, optional
        Default: one that is deleted in the end.
    max_bytes : int
        Of one file.
    owner_bytes : int
        Of all files of one owner.
    """

    def __init__(
        self,
        folder: str | Path | None = None,
        max_bytes: int = UPLOAD_BYTES,
        owner_bytes: int = OWNER_BYTES,
    ) -> None:
        self._temporary = folder is None
        self.folder = Path(folder or tempfile.mkdtemp(prefix="agentic-ray-data-"))
        private_folder(self.folder)
        os.environ[FOLDER] = str(self.folder.absolute())
        self.max_bytes = max_bytes
        self.owner_bytes = owner_bytes
        self._lock = threading.Lock()
        self._reader = Reader()
        for folder in self.folder.iterdir():
            sweep_drafts(folder)

    def close(self) -> None:
        """Delete what nobody asked to keep."""
        self._reader.close()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def entries(self, owner: str) -> list[Entry]:
        """The files of an owner, by name."""
        folder = owner_folder(self.folder, owner)
        found = []
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # (deleted meanwhile)
                found.append(Entry(**json.loads(path.read_bytes())))
        return found

    def entry(self, owner: str, name: str) -> Entry:
        """Return a file; RequestError 404 if there is none."""
        path = owner_folder(self.folder, owner) / f"{_checked(name)}.json"
        try:
            return Entry(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            raise RequestError(
                404, f"no data {cut_name(name)}; upload it with PUT /data/{{name}}", "UnknownData"
            ) from None

    def delete(self, owner: str, name: str) -> None:
        """Forget a file. Jobs that wait for it fail."""
        with self._lock:
            entry = self.entry(owner, name)
            folder = owner_folder(self.folder, owner)
            (folder / f"{name}.json").unlink(missing_ok=True)
            self._drop(owner, entry.sha256)

    def keep(self, owner: str, name: str, draft: Path, format: str, sha256: str) -> Entry:
        """Take in a file that came whole, if it is what it says."""
        size = draft.stat().st_size
        folder = owner_folder(self.folder, owner)
        self._reader.call(check_beginning, draft, format)
        with self._lock:
            known = {each.name: each for each in self.entries(owner)}
            old = known.pop(name, None)
            if sum(each.size for each in known.values()) + size > self.owner_bytes:
                raise RequestError(
                    507, f"your files may have {self.owner_bytes:,} bytes together", "DataFull"
                )
            draft.replace(folder / sha256)
            entry = Entry(name, format, size, sha256, time.time())
            note = folder / f".{uuid.uuid4().hex}.tmp"
            with open_private(note, "xb") as file:
                file.write(json.dumps(asdict(entry)).encode("ascii"))
            note.replace(folder / f"{name}.json")
            if old is not None and old.sha256 != sha256:
                self._drop(owner, old.sha256)
        return entry

    def resolve(self, parameters: Parameters, owner: str) -> Parameters:
        """Parameters in which each ``{"ref": NAME}`` is made the file that has this name now."""

        def resolved(value: Any) -> Any:
            if not isinstance(value, dict):
                return value
            if is_ref(value):
                entry = self.entry(owner, value["ref"])
                return Upload(entry.name, entry.format, entry.sha256, owner).params()
            if is_resolved(value) and value["owner"] != owner:
                raise RequestError(422, "only one's own data can be named", "UnknownData")
            return {name: resolved(each) for name, each in value.items()}

        return Parameters.of(resolved(loads(parameters.text)))

    def _drop(self, owner: str, sha256: str) -> None:
        if all(each.sha256 != sha256 for each in self.entries(owner)):
            (owner_folder(self.folder, owner) / sha256).unlink(missing_ok=True)


def check_beginning(file: Path, format: str) -> None:
    """Read the beginning of a file, to tell whoever sends it that it is none of its format.

    Raises
    ------
    RequestError
        422: it is none.
    """
    try:
        next(iter(read_rows(file, format)), None)
    except Exception as error:  # the readers of formats raise what they like
        reason = str(error).partition(". ")[0]  # (more is advice for who wrote the reader)
        raise RequestError(
            422, f"not a file of format {format}: {reason[:200]}", "NotThisFormat"
        ) from None


def add_data_routes(app: FastAPI, shelf: DataShelf, noted: Noted) -> None:
    """Add the routes about files to the application; ``noted`` is told of each change."""

    @app.put("/data/{name}", **described.PUT_DATA)
    async def put(request: Request, name: Name) -> Response:
        caller = caller_of(request)
        _checked(name)
        form = _format(name, request.headers.get("content-type"))
        expected = _expected_digest(request)
        folder = owner_folder(shelf.folder, caller.user)
        await run_in_threadpool(private_folder, folder)
        sweep_drafts(folder)
        draft = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            digest = await _receive(request, draft, shelf.max_bytes)
            if expected is not None and expected != digest:
                raise RequestError(409, f"the checksum of what came is {digest}", "WrongChecksum")
            entry = await run_in_threadpool(shelf.keep, caller.user, name, draft, form, digest)
        finally:
            draft.unlink(missing_ok=True)
        noted(caller, "upload", name)
        return JsonResponse(plain(asdict(entry)), 201, {"Location": f"/data/{name}"})

    @app.get("/data", **described.LIST_DATA)
    def listed(request: Request) -> Response:
        entries = shelf.entries(caller_of(request).user)
        return JsonResponse(plain({"data": [asdict(entry) for entry in entries]}))

    @app.get("/data/{name}", **described.GET_DATA)
    def get(request: Request, name: Name) -> Response:
        return JsonResponse(plain(asdict(shelf.entry(caller_of(request).user, name))))

    @app.delete("/data/{name}", **described.DELETE_DATA)
    def delete(request: Request, name: Name) -> Response:
        caller = caller_of(request)
        shelf.delete(caller.user, name)
        noted(caller, "delete data", name)
        return Response(status_code=204)


def sweep_drafts(folder: Path) -> None:
    """Delete what a process that was killed has left of uploads.

    An upload that is under way writes more often than that: other processes may share the folder.
    """
    before = time.time() - _DRAFT_SECONDS
    for draft in folder.glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # (deleted meanwhile)
            if draft.stat().st_mtime < before:
                draft.unlink()


async def _receive(request: Request, draft: Path, limit_bytes: int) -> str:
    """Write what comes to a file; its SHA-256."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and (len(announced) > 18 or int(announced) > limit_bytes):
        raise too_large(limit_bytes)
    made = hashlib.sha256()
    size = 0
    try:
        with open_private(draft, "xb") as file:
            parts = request.stream()
            while (part := await _next(parts)) is not None:
                size += len(part)
                if size > limit_bytes:
                    raise too_large(limit_bytes)
                await run_in_threadpool(file.write, part)
                await run_in_threadpool(made.update, part)
    except ClientDisconnect:
        raise RequestError(400, "the connection ended within the body") from None
    except OSError as error:
        if isinstance(error, JournalError | TimeoutError):
            raise
        raise RequestError(507, f"it cannot be kept: {error.strerror}", "DataFull") from error
    return made.hexdigest()


async def _next(parts: AsyncIterator[bytes]) -> bytes | None:
    try:
        async with asyncio.timeout(_PART_SECONDS):
            return await anext(parts, None)
    except TimeoutError:
        raise RequestError(
            408, f"nothing came for {_PART_SECONDS:g} seconds", "BodyTooSlow"
        ) from None


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise RequestError(
            422,
            "a name of data has up to 128 letters, digits, '.', '_' and '-', and begins with a "
            "letter or digit",
        )
    return name


def _format(name: str, content_type: str | None) -> str:
    media = (content_type or "").partition(";")[0].strip().lower()
    form = _MEDIA.get(media) or name.rpartition(".")[2].lower()
    if form not in FORMATS:
        raise RequestError(
            415,
            f"say the format by a Content-Type ({', '.join(sorted(_MEDIA))}) or by the end of the "
            f"name ({', '.join('.' + each for each in FORMATS)})",
            "UnknownFormat",
        )
    return form


def _expected_digest(request: Request) -> str | None:
    """The SHA-256 of the header ``Content-Digest`` (RFC 9530), in hexadecimal."""
    header = request.headers.get("content-digest")
    if header is None:
        return None
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name.lower() == "sha-256":
            with contextlib.suppress(binascii.Error, ValueError):
                digest = base64.b64decode(value.strip().strip(":"), validate=True)
                if len(digest) == hashlib.sha256().digest_size:
                    return digest.hex()
    raise RequestError(
        409, "nothing to compare: Content-Digest must be sha-256=:BASE64:", "WrongChecksum"
    )
