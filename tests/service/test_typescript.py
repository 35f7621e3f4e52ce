"""A TypeScript client that a stock generator makes of the OpenAPI document, used from Node.

Needs npm and its registry; skipped without.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.master import Master, Registry
from agentic_ray.service.http import create_app

from .serving import served

PACKAGES = (
    "openapi-typescript@7.13.0",
    "openapi-fetch@0.17.0",
    "typescript@5.9.3",
    "@types/node@20.19.43",
)
PROGRAM = Path(__file__).parent / "conformity" / "client.mts"
STRICT = "--strict --noEmitOnError --target es2022 --module es2022 --moduleResolution bundler"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        shutil.which("npm") is None or shutil.which("node") is None, reason="there is no npm"
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages."""
    made = tmp_path_factory.mktemp("typescript")
    (made / "package.json").write_text('{"private": true, "type": "module"}')
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *PACKAGES]
    told = subprocess.run(install, cwd=made, capture_output=True, text=True, timeout=600)
    if told.returncode:
        pytest.skip(f"npm cannot install the generator: {told.stderr[-500:]}")
    return made


def run(folder: Path, *command: str) -> str:
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


def test_a_generated_client_submits_asks_and_is_told_of_errors(folder: Path) -> None:
    registry = Registry()
    registry.register("echo", lambda params: params)
    with Master(workloads=registry) as master:
        app = create_app(master, token="a-token")
        (folder / "api.json").write_text(json.dumps(app.openapi()))
        shutil.copy(PROGRAM, folder / "client.ts")
        tools = folder / "node_modules" / ".bin"
        run(folder, str(tools / "openapi-typescript"), "api.json", "--output", "api.d.ts")
        run(folder, str(tools / "tsc"), *STRICT.split(), "--skipLibCheck", "client.ts")
        with served(app) as url:
            lines = run(folder, "node", "client.js", url, "a-token").splitlines()
    done, listed, missing = (json.loads(line) for line in lines)
    assert done["result"] == [1, 2]
    assert listed == {"total": 1, "first": done["id"]}
    expected: dict[str, Any] = {"status": 404, "type": "urn:agentic-ray:error:UnknownJobError"}
    assert missing == expected


def test_a_body_that_no_workload_takes_does_not_compile(folder: Path) -> None:
    with Master() as master:
        app = create_app(master)
        (folder / "api.json").write_text(json.dumps(app.openapi()))
        app.state.close()
    tools = folder / "node_modules" / ".bin"
    run(folder, str(tools / "openapi-typescript"), "api.json", "--output", "api.d.ts")
    (folder / "wrong.ts").write_text(
        'import createClient from "openapi-fetch";\n'
        'import type { paths } from "./api";\n'
        'createClient<paths>().POST("/submit", { body: { data: ["a text"] } });\n'
    )
    command = [str(tools / "tsc"), *STRICT.split(), "--skipLibCheck", "--noEmit", "wrong.ts"]
    told = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert told.returncode != 0
    assert "wrong.ts(3" in told.stdout
