"""Fixtures of the telemetry tests: the NVML stand-in built from C, and a Ray to probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentic_ray
from tests.support.nvml import build_standin

STANDIN = Path(__file__).parent / "nvml_standin"
ROOT = Path(agentic_ray.__file__).parents[1]


class Standin:
    """A child process that reads the stand-in library through the real ``pynvml``."""

    def __init__(self, library: Path, state_file: Path) -> None:
        self.state: dict[str, object] = {}
        self._file = state_file
        self.write()
        paths = [str(library), os.environ.get("LD_LIBRARY_PATH", "")]
        self._child = subprocess.Popen(
            [sys.executable, str(STANDIN / "reader.py")],
            env={
                **os.environ,
                "LD_LIBRARY_PATH": os.pathsep.join(path for path in paths if path),
                "NVML_STANDIN_STATE": str(state_file),
                "PYTHONPATH": str(ROOT),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def write(self, **changes: object) -> None:
        """Change the state; ``__`` in a name stands for a dot, None removes the key."""
        for name, value in changes.items():
            self.set(name.replace("__", "."), value)
        partial = self._file.with_suffix(".partial")
        lines = "".join(f"{key}={value}\n" for key, value in self.state.items())
        partial.write_text(lines, errors="surrogateescape")
        partial.replace(self._file)  # a reader sees the old state or the new one

    def set(self, key: str, value: object) -> None:
        """Change one key, written by the next `write`."""
        if value is None:
            self.state.pop(key, None)
        else:
            self.state[key] = value

    def add_gpu(self, index: int, **fields: object) -> None:
        """A GPU with all its figures, or with those in ``fields`` changed."""
        figures: dict[str, object] = {
            "uuid": f"GPU-{index}{index}{index}{index}aaaa-0000-0000-0000-00000000000{index}",
            "name": "NVIDIA Test 80GB",
            "total": 80 * 2**30,
            "free": 70 * 2**30,
            "used": 9 * 2**30,
            "reserved": 2**30,
            "util": 37,
            "processes": 2,
            "temp": 45,
            "power": 123_456,
            "ecc": 0,
            "throttle": 0,
            "bus": f"00000000:0{index + 1}:00.0",
            "mig": 0,
        }
        for field, value in {**figures, **fields}.items():
            self.set(f"gpu.{index}.{field}", value)
        self.state["gpus"] = max(int(str(self.state.get("gpus", 0))), index + 1)

    def do(self, command: str, **arguments: object) -> Any:
        """Send a command to the child and return its answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
        self._child.stdin.flush()
        answer = self._child.stdout.readline()
        assert answer, "the child died"
        return json.loads(answer)

    def read(self) -> dict[str, Any]:
        """One reading, as plain JSON."""
        answer = self.do("read")
        assert isinstance(answer, dict)
        return answer

    def finish(self) -> None:
        """End the child; it must end by itself, event thread or not."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        try:
            assert self._child.wait(timeout=10) == 0
        finally:
            self._child.kill()
            if self._child.stdout is not None:
                self._child.stdout.close()


@pytest.fixture(scope="session")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_standin(tmp_path_factory.mktemp("nvml_new"))


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_standin(tmp_path_factory.mktemp("nvml_old"), "-DOLD_DRIVER")


@pytest.fixture
def make_standin(tmp_path: Path) -> Iterator[Callable[[Path], Standin]]:
    made: list[Standin] = []

    def make(library: Path) -> Standin:
        made.append(Standin(library, tmp_path / f"state{len(made)}"))
        return made[-1]

    yield make
    for standin in made:
        standin.finish()


@pytest.fixture
def standin(make_standin: Callable[[Path], Standin], new_driver: Path) -> Standin:
    """Two healthy GPUs and a current driver."""
    standin = make_standin(new_driver)
    standin.add_gpu(0)
    standin.add_gpu(1)
    standin.write()
    return standin


@pytest.fixture
def ray_connection(request: pytest.FixtureRequest) -> Iterator[None]:
    """A Ray this process is connected to: the suite's shared one where it has one."""
    import ray

    try:
        request.getfixturevalue("ray_session")
    except pytest.FixtureLookupError:
        mine = not ray.is_initialized()
        if mine:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        if mine:
            ray.shutdown()
    else:
        yield
