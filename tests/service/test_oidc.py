"""Tokens of an OpenID Connect provider: real keys, a real server of them, and forged tokens."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from agentic_ray.errors import InvalidArgumentError, ServiceError
from agentic_ray.master import Master, Registry
from agentic_ray.service import oidc
from agentic_ray.service.bodies import RequestError
from agentic_ray.service.http import create_app
from agentic_ray.service.oidc import OpenIdSettings, OpenIdTokens

jwt = pytest.importorskip("jwt")
rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402

ISSUER, AUDIENCE = "https://login.example.org", "agentic-ray"


def public(key: Any, name: str, **more: str) -> dict[str, Any]:
    kind = {
        rsa.RSAPrivateKey: jwt.algorithms.RSAAlgorithm,
        ec.EllipticCurvePrivateKey: jwt.algorithms.ECAlgorithm,
        ed25519.Ed25519PrivateKey: jwt.algorithms.OKPAlgorithm,
    }
    made = next(each for of, each in kind.items() if isinstance(key, of))
    found: dict[str, Any] = json.loads(made.to_jwk(key.public_key()))
    return found | {"kid": name, "use": "sig"} | more


@pytest.fixture(scope="module")
def keys() -> dict[str, Any]:
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
        "stranger": rsa.generate_private_key(65537, 2048),
    }


@pytest.fixture(scope="module")
def file(keys: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("oidc") / "keys.json"
    told = [public(keys[name], name) for name in ("rsa", "ec", "ed")]
    told.append({"kty": "oct", "kid": "secret", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXM"})
    told.append(public(keys["stranger"], "for encryption", use="enc"))
    path.write_text(json.dumps({"keys": told}))
    return path


@pytest.fixture(scope="module")
def tokens(file: Path) -> OpenIdTokens:
    return OpenIdTokens(OpenIdSettings(ISSUER, AUDIENCE, str(file)))


def claims(**more: Any) -> dict[str, Any]:
    known = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ada",
        "exp": time.time() + 600,
        "scope": "openid agentic-ray:submit",
    }
    return {name: value for name, value in (known | more).items() if value is not None}


def signed(keys: dict[str, Any], name: str = "rsa", algorithm: str = "RS256", **more: Any) -> str:
    made: str = jwt.encode(claims(**more), keys[name], algorithm, headers={"kid": name})
    return made


def part(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("name", "algorithm"), [("rsa", "RS256"), ("ec", "ES256"), ("ed", "EdDSA")]
)
def test_a_token_of_the_provider_opens(
    keys: dict[str, Any], tokens: OpenIdTokens, name: str, algorithm: str
) -> None:
    caller = tokens.caller(signed(keys, name, algorithm))
    assert (caller.user, caller.scope) == ("ada", "submit")
    admin = signed(keys, name, algorithm, scope=["agentic-ray:read", "agentic-ray:admin"])
    assert tokens.caller(admin).scope == "admin"


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"exp": 1}, 401),
        ({"exp": None}, 401),
        ({"nbf": time.time() + 3600}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"iss": None}, 401),
        ({"aud": "something else"}, 401),
        ({"aud": None}, 401),
        ({"sub": None}, 401),
        ({"sub": "x" * 300}, 401),
        ({"sub": ""}, 401),
        ({"scope": "openid admin"}, 403),
        ({"scope": None}, 403),
        ({"scope": "agentic-ray:administrator"}, 403),
        ({"scope": {"agentic-ray:admin": True}}, 403),
    ],
)
def test_claims_that_do_not_fit_are_refused(
    keys: dict[str, Any], tokens: OpenIdTokens, more: dict[str, Any], status: int
) -> None:
    with pytest.raises(RequestError) as refused:
        tokens.caller(signed(keys, **more))
    assert refused.value.status == status


def forged(keys: dict[str, Any]) -> dict[str, str]:
    good = signed(keys)
    head, body, signature = good.split(".")
    pem = (
        keys["rsa"]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    confused = f"{part({'alg': 'HS256', 'kid': 'rsa'})}.{part(claims(sub='root'))}"
    with_public_key = hmac.new(pem, confused.encode(), hashlib.sha256).digest()
    secret = f"{part({'alg': 'HS256', 'kid': 'secret'})}.{part(claims(sub='root'))}"
    with_secret = hmac.new(b"secret-secret-secret-secret-s", secret.encode(), hashlib.sha256)
    none = f"{part({'alg': 'none', 'kid': 'rsa'})}.{part(claims(sub='root'))}."
    own_key = {"alg": "RS256", "jwk": public(keys["stranger"], "rsa"), "kid": "rsa"}
    return {
        "none": none,
        "None": none.replace(part({"alg": "none", "kid": "rsa"}), part({"alg": "None"})),
        "the public key as a secret": f"{confused}.{part(with_public_key)}",
        "a symmetric key of the set": f"{secret}.{part(with_secret.digest())}",
        "another algorithm of the same key": signed(keys, algorithm="RS512"),
        "another key of the same name": jwt.encode(
            claims(), keys["stranger"], "RS256", headers={"kid": "rsa"}
        ),
        "a key that it brings": jwt.encode(claims(), keys["stranger"], "RS256", headers=own_key),
        "a key for encryption": jwt.encode(
            claims(), keys["stranger"], "RS256", headers={"kid": "for encryption"}
        ),
        "no name of a key": jwt.encode(claims(), keys["rsa"], "RS256"),
        "a changed claim": f"{head}.{part(claims(sub='root'))}.{signature}",
        "no signature": f"{head}.{body}.",
        "no JSON": f"{part(b'x')}.{part(b'y')}.{part(b'z')}",
        "a list": f"{part([1])}.{part([2])}.{signature}",
        "bytes": "\xff.\xff.\xff",
        "long": f"{head}.{'A' * 20_000}.{signature}",
    }


@pytest.mark.parametrize(
    "kind",
    [
        *("none", "None", "the public key as a secret", "a symmetric key of the set"),
        *("another algorithm of the same key", "another key of the same name"),
        *("a key that it brings", "a key for encryption", "no name of a key", "a changed claim"),
        *("no signature", "no JSON", "a list", "bytes", "long"),
    ],
)
def test_forged_tokens_are_refused(keys: dict[str, Any], tokens: OpenIdTokens, kind: str) -> None:
    with pytest.raises(RequestError) as refused:
        tokens.caller(forged(keys)[kind])
    assert refused.value.status == 401


def test_over_http_each_sees_their_own(keys: dict[str, Any], tokens: OpenIdTokens) -> None:
    registry = Registry()
    registry.register("echo", lambda params: params)
    with Master(workloads=registry) as master:
        app = create_app(master, token="of-the-operator", openid=tokens)
        client = TestClient(app, base_url="http://service.example")

        def ask(method: str, path: str, token: str, **more: Any) -> Any:
            headers = {"Authorization": f"Bearer {token}"}
            return client.request(method, path, headers=headers, **more)

        ada, bob = signed(keys), signed(keys, sub="bob", scope="agentic-ray:read")
        body = {"workload": "echo", "params": 1}
        made = ask("POST", "/submit", ada, json=body)
        assert made.status_code == 202, made.text
        path = f"/status/{made.json()['task_id']}"
        assert ask("GET", path, ada).json()["user"] == "ada"
        assert ask("GET", path, bob).status_code == 404
        assert ask("POST", "/submit", bob, json=body).status_code == 403
        assert ask("GET", path, "of-the-operator").status_code == 200
        assert ask("GET", path, forged(keys)["none"]).status_code == 401
        app.state.close()


# --- keys by URL --------------------------------------------------------------------------


class Provider(http.server.ThreadingHTTPServer):
    answer = b"{}"
    asked = 0


@pytest.fixture
def provider() -> Iterator[Provider]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.asked += 1
            self.send_response(200)
            self.end_headers()
            self.wfile.write(made.answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    made = Provider(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_new_keys_of_the_provider_are_fetched(
    keys: dict[str, Any], provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oidc, "_SOONEST_SECONDS", 0.2)
    url = f"http://127.0.0.1:{provider.server_port}/keys"
    tokens = OpenIdTokens(OpenIdSettings(ISSUER, AUDIENCE, url))

    def status(token: str) -> int:
        try:
            tokens.caller(token)
        except RequestError as refused:
            return refused.status
        return 200

    try:
        assert status(signed(keys)) == 503  # the provider has none yet
        provider.answer = json.dumps({"keys": [public(keys["rsa"], "rsa")]}).encode()
        wait(lambda: status(signed(keys)) == 200)
        provider.answer = json.dumps({"keys": [public(keys["ec"], "ec")]}).encode()
        wait(lambda: status(signed(keys, "ec", "ES256")) == 200)
        assert status(signed(keys)) == 401  # taken away
        provider.answer = b"broken"
        asked = provider.asked
        assert status(signed(keys)) == 401
        wait(lambda: provider.asked > asked)
        assert status(signed(keys, "ec", "ES256")) == 200
    finally:
        tokens.close()


def wait(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("waited too long")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"keys": "http://login.example.org/keys"}, InvalidArgumentError),
        ({"keys": "/nowhere/keys.json"}, ServiceError),
        ({"audience": ""}, InvalidArgumentError),
        ({"issuer": ""}, InvalidArgumentError),
    ],
)
def test_settings_that_cannot_be(
    file: Path, changes: dict[str, str], error: type[Exception]
) -> None:
    given = {"issuer": ISSUER, "audience": AUDIENCE, "keys": str(file)} | changes
    with pytest.raises(error):
        OpenIdTokens(OpenIdSettings(**given))


def test_a_file_without_public_keys_is_refused(tmp_path: Path) -> None:
    for content in ("{}", "[]", "x", '{"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}'):
        path = tmp_path / "keys"
        path.write_text(content)
        with pytest.raises(ServiceError):
            OpenIdTokens(OpenIdSettings(ISSUER, AUDIENCE, str(path)))
