"""schemathesis, which makes requests of the OpenAPI document, finds nothing with all its checks.

It comes with ``pip install schemathesis``; without it these tests are skipped. AGENTIC_RAY_LONG=1
tries ten times as many requests.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TOKEN = "a-token-of-the-test"
LONG = bool(os.environ.get("AGENTIC_RAY_LONG"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600 if LONG else 600),
    pytest.mark.skipif(
        importlib.util.find_spec("schemathesis") is None,
        reason="schemathesis is not there: pip install schemathesis",
    ),
]


@contextmanager
def served(folder: Path, token: str) -> Iterator[str]:
    environment = {**os.environ} | ({"AGENTIC_RAY_TOKEN": token} if token else {})
    script, journal = str(HERE.parent / "without_ray.py"), str(folder / "j.sqlite3")
    with subprocess.Popen(
        [sys.executable, script, "serve", "--port", "0", "--journal", journal],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as service:
        assert service.stdout is not None
        try:
            found = re.fullmatch(r"serving on (http://\S+)\n", service.stdout.readline())
            assert found
            yield found[1]
        finally:
            service.terminate()


@pytest.mark.parametrize("token", ["", TOKEN], ids=["open", "with a token"])
def test_all_checks_find_nothing(tmp_path: Path, token: str) -> None:
    with served(tmp_path, token) as url:
        arguments = [f"{url}/openapi.json", "--checks", "all", "--continue-on-failure"]
        # Streams of events end when the client goes.
        arguments += ["--exclude-path-regex", "^/events", "--request-timeout", "120"]
        arguments += ["--max-response-time", "120"]  # (the machine may have other work)
        arguments += ["--max-examples", "200" if LONG else "20", "--generation-deterministic"]
        arguments += ["--no-color"]
        if token:
            arguments += ["--header", f"Authorization: Bearer {token}"]
        told = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)},
        )
    assert told.returncode == 0, told.stdout[-20_000:] + told.stderr[-2_000:]
    assert "Tested: 16" in told.stdout, told.stdout
