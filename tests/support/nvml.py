"""The stand-in of NVML, built from C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_SOURCE = Path(__file__).parents[1] / "telemetry/nvml_standin/nvml_standin.c"


def build_standin(folder: Path, *options: str) -> Path:
    """Build it with options of the compiler; return the folder. A test is skipped where there is no
    C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the NVML stand-in needs a C compiler (cc or gcc) and there is none")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", *options, "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True)
    return folder
