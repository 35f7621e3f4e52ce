"""Bearer tokens of an OpenID Connect provider: `OpenIdTokens` tells whose one is, by the keys that
the operator has named. Needs the extra ``oidc``.

Signatures are of asymmetric algorithms only, and each key is used with its own.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx

from agentic_ray.errors import InvalidArgumentError, ServiceError
from agentic_ray.master.checks import KEY_LENGTH
from agentic_ray.service.access import SCOPES, Caller, Scope
from agentic_ray.service.bodies import RequestError
from agentic_ray.service.tokens import unauthorized

if TYPE_CHECKING:
    import jwt

_logger = logging.getLogger("agentic_ray")

_ALGORITHMS: Final[dict[str, tuple[str, ...]]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
"""Algorithms that a key of each type may have signed with. None is symmetric: a public key that is
taken for a secret (HS256) lets anybody sign."""
_HERE: Final = ("127.0.0.1", "::1", "localhost")
_PREFIX: Final = "agentic-ray:"
_LEEWAY_SECONDS: Final = 30
_REFRESH_SECONDS: Final = 300.0
_SOONEST_SECONDS: Final = 10.0
_FETCH_SECONDS: Final = 10.0
_MOST_BYTES: Final = 1 << 20
_LONGEST: Final = 16 << 10


@dataclass(frozen=True, slots=True)
class OpenIdSettings:
    """Which tokens are taken, and what their claims mean.

    Parameters
    ----------
    issuer, audience : str
        The claims ``iss`` and ``aud`` that a token must have.
    keys : str
        A file, or an ``https://`` URL, with the provider's public keys (JWKS).
    owner_claim : str
        Its text is the owner of the jobs. It must be one that users cannot choose.
    scope_claim : str
        A text of words, or a list, among which ``agentic-ray:read``, ``agentic-ray:submit`` or
        ``agentic-ray:admin`` says what the token may do.
    """

    issuer: str
    audience: str
    keys: str
    owner_claim: str = "sub"
    scope_claim: str = "scope"


class OpenIdTokens:
    """Tells who has shown which token; safe to use from any thread.

    Keys of a URL are fetched at the start, every five minutes, and soon after a token named one
    that is not known; a provider that does not answer leaves those that there are.

    Raises
    ------
    InvalidArgumentError
        The settings cannot be used.
    ServiceError
        The library is missing, or the file is not one of keys.
    """

    def __init__(self, settings: OpenIdSettings) -> None:
        try:
            import jwt  # optional
        except ImportError as error:
            raise ServiceError("OpenID tokens need: pip install 'agentic-ray[oidc]'") from error
        for name in ("issuer", "audience", "keys", "owner_claim", "scope_claim"):
            if not getattr(settings, name):
                raise InvalidArgumentError(f"OpenID tokens need the {name.replace('_', ' ')}")
        self._jwt = jwt
        self._settings = settings
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = -1e9
        self._wanted = threading.Event()
        self._closing = False
        parts = urlsplit(settings.keys)
        self._is_url = parts.scheme in ("http", "https")
        if not self._is_url:
            self._keys = self._read_file(settings.keys)
            return
        if parts.scheme == "http" and parts.hostname not in _HERE:
            raise InvalidArgumentError(f"keys come over https://, not from {settings.keys}")
        self._fetch()
        threading.Thread(target=self._refresh, name="OpenID keys", daemon=True).start()

    def close(self) -> None:
        """Fetch no more keys."""
        self._closing = True
        self._wanted.set()

    def caller(self, text: str) -> Caller:
        """Whose token this is.

        Raises
        ------
        RequestError
            401: it is none of ours, or holds no longer. 403: it has no scope of ours. 503: there
            are no keys yet.
        """
        if len(text) > _LONGEST:
            raise unauthorized("this token is too long")
        try:
            key = self._key(self._jwt.get_unverified_header(text))
            claims: dict[str, Any] = self._jwt.decode(
                text,
                key=key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except self._jwt.PyJWTError as error:
            raise unauthorized(f"this token is not valid ({error})") from None
        owner = claims.get(self._settings.owner_claim)
        if not isinstance(owner, str) or not 0 < len(owner) <= KEY_LENGTH:
            raise unauthorized(f"this token has no {self._settings.owner_claim}")
        return Caller(owner, self._scope(claims), str(claims.get("jti", ""))[:64])

    def _scope(self, claims: dict[str, Any]) -> Scope:
        given = claims.get(self._settings.scope_claim)
        words = given.split() if isinstance(given, str) else given
        known = [scope for scope in SCOPES if isinstance(words, list) and _PREFIX + scope in words]
        if not known:
            raise RequestError(
                403,
                f"this token has none of {', '.join(_PREFIX + scope for scope in SCOPES)} in its "
                f"claim {self._settings.scope_claim}",
                "Forbidden",
            )
        return known[-1]

    def _key(self, header: dict[str, Any]) -> jwt.PyJWK:
        """The key that a token's header names; what else the header says must fit it."""
        if self._is_url and not self._keys:
            self._wanted.set()
            raise RequestError(503, "the provider's keys are not there", "TokensUnreadable")
        name = header.get("kid")
        keys = self._keys
        key = next(iter(keys.values())) if name is None and len(keys) == 1 else keys.get(str(name))
        if key is None:
            self._wanted.set()
            raise unauthorized("the key of this token is not known")
        if header.get("alg") != key.algorithm_name:
            raise unauthorized("this token is signed in another way than its key says")
        return key

    def _refresh(self) -> None:
        while not self._closing:
            self._wanted.wait(_REFRESH_SECONDS)
            left = self._fetched_at + _SOONEST_SECONDS - time.monotonic()
            if left > 0 and not self._closing:
                time.sleep(min(left, 1.0))
                continue
            self._wanted.clear()
            if not self._closing:
                self._fetch()

    def _fetch(self) -> None:
        self._fetched_at = time.monotonic()
        url = self._settings.keys
        try:
            with httpx.stream("GET", url, timeout=_FETCH_SECONDS, trust_env=False) as answer:
                answer.raise_for_status()
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise ValueError("the answer is too large")
            self._keys = self._read(content)
        except (httpx.HTTPError, ValueError, ServiceError) as error:
            _logger.warning("the keys of %s: %s; those of before stay", url, error)

    def _read_file(self, path: str) -> dict[str, jwt.PyJWK]:
        try:
            return self._read(Path(path).expanduser().read_bytes())
        except (OSError, ValueError) as error:
            raise ServiceError(f"the keys in {path} cannot be read: {error}") from error

    def _read(self, content: bytes) -> dict[str, jwt.PyJWK]:
        """The keys for signatures, by their names."""
        found = {}
        told = json.loads(content)
        for each in told["keys"] if isinstance(told, dict) and "keys" in told else ():
            allowed = _ALGORITHMS.get(each.get("kty", ""), ())
            if (
                each.get("use", "sig") != "sig"
                or not allowed
                or each.get("alg", allowed[0]) not in allowed
            ):
                continue
            try:
                key = self._jwt.PyJWK(each)
            except self._jwt.PyJWTError as error:
                _logger.warning("a key of the provider is passed over: %s", error)
                continue
            if key.algorithm_name in allowed:
                found[str(each.get("kid", ""))] = key
        if not found:
            raise ServiceError("there is no public key for signatures among them")
        return found
