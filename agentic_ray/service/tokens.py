"""Tokens of users: a file with the hash of each, what it may do, whose it is and how long it holds.

`TokenFile` is what ``agentic-ray token`` changes, `Keyring` what a running service asks; it notices
changes of the file within a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from agentic_ray.errors import InvalidArgumentError, JournalError, ServiceError
from agentic_ray.master.checks import check_text
from agentic_ray.master.private import check_file, open_private
from agentic_ray.service.access import SCOPES, Caller, Scope
from agentic_ray.service.bodies import RequestError

_PREFIX: Final = "art"
_LOOK_SECONDS: Final = 1.0
_DAY: Final = 86_400.0
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Token:
    """Facts about a token; the token itself is not among them.

    Parameters
    ----------
    id : str
        Part of the token, by which it is listed and revoked.
    hash : str
        SHA-256 of the token. (It is random and long: nobody can try them all.)
    owner : str
        Whose jobs it submits and sees.
    scope : {"read", "submit", "admin"}
    created_at, expires_at : float
        Seconds since the epoch; None: it holds until it is revoked.
    rate : float or None
        Requests a second, on average.
    """

    id: str
    hash: str
    owner: str
    scope: Scope
    created_at: float
    expires_at: float | None = None
    rate: float | None = None

    def shown(self) -> dict[str, Any]:
        """Return the facts about a token that may be listed."""
        return {name: value for name, value in asdict(self).items() if name != "hash"}


class TokenFile:
    """The tokens in a file that this user alone can read; changes are whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()

    def create(
        self,
        owner: str,
        scope: Scope,
        *,
        days: float | None = None,
        rate: float | None = None,
    ) -> tuple[str, Token]:
        """Make a token; the text that its owner needs is told this once.

        Raises
        ------
        InvalidArgumentError
            Not a scope, owner, time or rate.
        ServiceError
            The file cannot be used.
        """
        check_text("owner", owner)
        if scope not in SCOPES:
            raise InvalidArgumentError(f"scope must be one of {', '.join(SCOPES)}, not {scope!r}")
        for name, value in (("days", days), ("rate", rate)):
            if value is not None and not 0 < value <= 1e6:
                raise InvalidArgumentError(f"{name} must be more than 0 and at most 1e6")
        token_id = secrets.token_hex(6)
        text = f"{_PREFIX}_{token_id}_{secrets.token_urlsafe(32)}"
        now = time.time()
        expires = None if days is None else now + days * _DAY
        made = Token(token_id, hash_of(text), owner, scope, now, expires, rate)
        with self._changing() as tokens:
            tokens.append(made)
        return text, made

    def revoke(self, token_id: str) -> Token:
        """Make a token hold no longer.

        Raises
        ------
        InvalidArgumentError
            There is none.
        """
        with self._changing() as tokens:
            for token in tokens:
                if token.id == token_id:
                    tokens.remove(token)
                    return token
            raise InvalidArgumentError(f"no token {token_id!r} in {self.path}")

    def read(self) -> list[Token]:
        """All tokens, oldest first; none if there is no file.

        Raises
        ------
        ServiceError
            The file is another user's, or is not what was written.
        """
        try:
            check_file(self.path)
            if self.path.exists() and self.path.stat().st_mode & 0o077:
                raise ServiceError(f"{self.path} is open to other users: chmod 600 it")
            content = json.loads(self.path.read_bytes())
            if content["version"] != _VERSION:
                raise ServiceError(f"{self.path} was written by a later version of agentic_ray")
            return [Token(**each) for each in content["tokens"]]
        except FileNotFoundError:
            return []
        except JournalError as error:
            raise ServiceError(str(error)) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ServiceError(f"tokens in {self.path} cannot be read: {error}") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open_private(Path(f"{self.path}.lock"), "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tokens = self.read()
                yield tokens
                text = json.dumps(
                    {"version": _VERSION, "tokens": [asdict(token) for token in tokens]}, indent=1
                )
                draft = Path(f"{self.path}.{secrets.token_hex(4)}.tmp")
                with open_private(draft, "xb") as file:
                    file.write(text.encode("ascii"))
                    file.flush()
                    os.fsync(file.fileno())
                draft.replace(self.path)
        except OSError as error:
            raise ServiceError(f"tokens in {self.path}: {error}") from error


class Others(Protocol):
    """Tells whose tokens of another form are."""

    def caller(self, text: str) -> Caller: ...


class Keyring:
    """Tells who has shown which token; safe to use from any thread.

    Parameters
    ----------
    file : TokenFile or None
    token : str or None
        One more token, which may do all.
    others : OpenIdTokens or None
        Knows tokens of another form.
    """

    def __init__(
        self,
        file: TokenFile | None = None,
        token: str | None = None,
        clock: Callable[[], float] = time.time,
        others: Others | None = None,
    ) -> None:
        self._file = file
        self._others = others
        self._clock = clock
        self._lock = threading.Lock()
        self._fixed: dict[str, Token] = {}
        if token is not None:
            digest = hash_of(token)
            self._fixed[digest] = Token(digest[:12], digest, f"token-{digest[:12]}", "admin", 0.0)
        self._known: dict[str, Token] = {}
        self._seen: tuple[int, int, int] | None = None
        self._looked = -1e9
        self._buckets: dict[str, tuple[float, float]] = {}
        if file is not None:
            self._known = _by_hash(file.read())

    def caller(self, text: str) -> Caller:
        """Whose token this is.

        Raises
        ------
        RequestError
            401: it is none, or holds no longer. 429: too many requests with it.
        """
        with self._lock:
            self._look()
            digest = hash_of(text)
            token = self._fixed.get(digest) or self._known.get(digest)
            if token is None:
                if self._others is not None and text.count(".") == 2:
                    return self._others.caller(text)
                raise unauthorized("this token is not known")
            now = self._clock()
            if token.expires_at is not None and now >= token.expires_at:
                raise unauthorized("this token holds no longer")
            if token.rate is not None:
                self._spend(token, token.rate, now)
        return Caller(token.owner, token.scope, token.id)

    def _look(self) -> None:
        """Read the file again if it has changed. One that cannot be read leaves no token valid."""
        if self._file is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        try:
            found = self._file.path.stat()
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = (0, 0, 0)
        if seen != self._seen:
            try:
                self._known = _by_hash(self._file.read())
            except ServiceError:
                self._known, self._seen = {}, None
                raise RequestError(503, "the tokens cannot be read", "TokensUnreadable") from None
            self._seen = seen

    def _spend(self, token: Token, rate: float, now: float) -> None:
        most = max(1.0, 2 * rate)
        left, at = self._buckets.get(token.id, (most, now))
        left = min(most, left + max(0.0, now - at) * rate)
        if left < 1:
            self._buckets[token.id] = left, now
            raise RequestError(
                429,
                f"more than {rate:g} requests a second with this token",
                "TooManyRequests",
                {"Retry-After": str(max(1, round((1 - left) / rate)))},
            )
        self._buckets[token.id] = left - 1, now


def hash_of(text: str) -> str:
    """Return the hash that is kept of a token."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def unauthorized(why: str) -> RequestError:
    """The refusal of a request without a right token."""
    return RequestError(
        401,
        f"{why}; send one as 'Authorization: Bearer TOKEN'",
        "Unauthorized",
        {"WWW-Authenticate": "Bearer"},
    )


def _by_hash(tokens: list[Token]) -> dict[str, Token]:
    return {token.hash: replace(token) for token in tokens}
