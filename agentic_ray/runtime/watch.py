"""The watched lane: a bundle that keeps dying runs in a child process, to learn how it dies.

The child reports each task and element that it begins. When it dies, the parent, a Ray worker,
knows where it was and how the kernel ended it. The child has no connection to Ray.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, Pipe
from typing import Any

import ray
from ray import cloudpickle

from agentic_ray.errors import OutOfHostMemoryError, PoisonTaskError
from agentic_ray.runtime.execute import Payload, describe, run_payload, with_printed
from agentic_ray.runtime.outcomes import Died, Report
from agentic_ray.runtime.printed import Taken, take_files
from agentic_ray.telemetry.host import oom_kills

_POLL_SECONDS = 0.2
_PROGRAM = "from agentic_ray.runtime.watch import child_main; child_main()"


def run_watched(payload: Payload, inputs: Sequence[Any], *, node_id: str) -> tuple[Any, ...]:
    """Run a bundle in a child, as `run_payload`; if the child dies, the Report says where and
    how."""
    fetched = {
        token: ray.get(source) if isinstance(source, ray.ObjectRef) else source
        for token, source in payload.codelets.items()
    }
    payload = replace(payload, codelets=fetched)
    killed_before = oom_kills()
    here, there = Pipe()
    taken = Taken()
    with (
        tempfile.TemporaryFile(buffering=0) as stdout,
        tempfile.TemporaryFile(buffering=0) as stderr,
        subprocess.Popen(
            # (-u: its printed text must not die with it)
            [sys.executable, "-u", "-c", _PROGRAM, str(there.fileno())],
            pass_fds=(there.fileno(),),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=stdout,
            stderr=stderr,
        ) as child,
    ):
        there.close()
        try:
            here.send_bytes(cloudpickle.dumps((payload, tuple(inputs), node_id)))
            report, *large = _listen(here, child, len(payload.outputs), node_id)
            death = report.outcome
            if isinstance(death, Died) and death.exit_code == -signal.SIGKILL:
                killed = oom_kills()
                if killed is not None and killed_before is not None and killed > killed_before:
                    report = replace(report, outcome=replace(death, out_of_memory=True))
        finally:
            child.kill()
        take_files(taken, {"stdout": stdout, "stderr": stderr})
    return (with_printed(report, taken), *large)


def _listen(
    here: Connection, child: subprocess.Popen[bytes], outputs: int, node_id: str
) -> tuple[Any, ...]:
    """Follow the child until it is done or dead."""
    codelet, arguments = "?", ()
    chunk: int | None = None
    element: tuple[int, str] | None = None
    while True:
        # (EOF is no sure sign: a process that the child started may hold the pipe open.)
        if not here.poll(_POLL_SECONDS) and child.poll() is not None and not here.poll(0):
            break
        try:
            kind, *said = cloudpickle.loads(here.recv_bytes())
        except (EOFError, OSError):
            break
        if kind == "done":
            return tuple(said[0])
        if kind == "step":
            codelet, chunk, arguments = said
            element = None
        else:
            element = said[0]
    code = child.wait()
    shapes = arguments if element is None else (element[1],)
    death = Died(codelet, chunk, None if element is None else element[0], code, shapes)
    report = Report(node_id, child.pid, 0.0, (), death)
    return (report, *(None,) * outputs)


def poison_error(death: Died) -> PoisonTaskError | OutOfHostMemoryError:
    """Make the caller's error for a bundle that dies under watch too."""
    name = signal.Signals(-death.exit_code).name if death.exit_code < 0 else None
    how = f"was killed by {name}" if name else f"ended with exit code {death.exit_code}"
    where = "" if death.chunk is None else f" on chunk {death.chunk}"
    if death.element is not None:
        where += f", element {death.element} of the input"
    shapes = ", ".join(death.inputs) or "none"
    if death.out_of_memory:
        return OutOfHostMemoryError(
            f"{death.codelet!r}{where} needs more memory than there is: the kernel killed each "
            "process that it ran in, the last one, which was watched, as it ran out of memory "
            "(oom_kill of its control group; in a container its memory limit). Make its pieces "
            f"smaller, or the limit larger. Its inputs: {shapes}"
        )
    return PoisonTaskError(
        f"{death.codelet!r}{where} ends every process that it runs in; the last one, which was "
        f"watched, {how}. Its inputs: {shapes}",
        task=death.codelet,
        element_index=death.element,
        chunk_index=death.chunk,
        exit_signal=name,
        exit_code=death.exit_code,
        inputs=death.inputs,
    )


def child_main() -> None:
    """Run, as the child, the bundle from the pipe, and report each beginning."""
    there = Connection(int(sys.argv[1]))
    payload, inputs, node_id = cloudpickle.loads(there.recv_bytes())

    def tell(*what: Any) -> None:
        there.send_bytes(cloudpickle.dumps(what))

    def on_step(codelet: str, args: Sequence[Any]) -> None:
        chunk = args[0] if len(args) == 3 and isinstance(args[2], list) else None
        tell("step", codelet, chunk, tuple(map(describe, args)))

    def on_element(index: int | None, value: Any) -> None:
        tell("element", None if index is None else (index, describe(value)))

    threading.Thread(target=_end_with_parent, args=(there,), daemon=True).start()
    results = run_payload(
        payload,
        inputs,
        node_id=node_id,
        pid=os.getpid(),
        on_step=on_step,
        on_element=on_element,
    )
    tell("done", results)
    os._exit(0)


def _end_with_parent(there: Connection) -> None:
    """End when the parent is gone: it writes nothing more, so the pipe is readable only then."""
    there.poll(None)
    os._exit(1)
