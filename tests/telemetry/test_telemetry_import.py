"""Importing the package must stay cheap."""

from __future__ import annotations

import subprocess
import sys


def test_importing_telemetry_loads_no_heavy_library() -> None:
    code = (
        "import sys, agentic_ray.telemetry as telemetry\n"
        "heavy = {'ray', 'pynvml', 'pyarrow', 'numpy', 'cupy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert all(hasattr(telemetry, name) for name in telemetry.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
