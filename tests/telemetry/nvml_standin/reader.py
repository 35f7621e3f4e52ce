"""Child process of the NVML tests: reads the library it was given, on commands from its stdin.

One JSON command a line in (an ``NvmlProbe`` method or ``new`` or ``threads``), one JSON answer out.
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from typing import Any

from agentic_ray.telemetry.nvml import NvmlProbe


def main() -> None:
    probe = NvmlProbe()
    for line in sys.stdin:
        command: dict[str, Any] = json.loads(line)
        answer: Any = None
        match command.pop("do"):
            case "new":
                probe.close()
                probe = NvmlProbe(**command)
            case "read":
                answer = asdict(probe.read())
            case "close":
                probe.close()
            case "threads":
                answer = sorted(thread.name for thread in threading.enumerate())
            case "foreign_shutdown":
                import pynvml

                pynvml.nvmlShutdown()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
