"""The program of a function process on a GPU: it makes calls until its executor hangs up.

It has no connection to Ray. It sees one device only, which the environment that it was started in
names by UUID.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from ray import cloudpickle

from agentic_ray.runtime.execute import is_plain
from agentic_ray.runtime.failures import PackedError
from agentic_ray.runtime.functions.call import FunctionCall
from agentic_ray.runtime.functions.shortage import is_out_of_memory
from agentic_ray.runtime.printed import install, taking


def run(calls_descriptor: int, life_descriptor: int) -> None:
    """Read calls from a pipe and answer them in order, in a process forked for that.

    The other pipe ends when the executor does, and with it this process.
    """
    calls, life = Connection(calls_descriptor), Connection(life_descriptor)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    install()
    function: FunctionCall | None = None
    while True:
        try:
            kind, *said = cloudpickle.loads(calls.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        if kind == "function":
            name, data, threads = said
            if threads is not None:
                os.environ["OMP_NUM_THREADS"] = str(threads)  # for frameworks not yet imported
            try:
                function = cloudpickle.loads(data).gpu
                answer: tuple[Any, ...] = ("ready",)
            except BaseException as error:  # imports of the user's may raise anything
                answer = ("raised", PackedError.pack(error, name), False, ())
        else:
            assert function is not None
            answer = _call(function, *said)
        calls.send_bytes(cloudpickle.dumps(answer))


def _call(function: FunctionCall, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Make a call; return what is told of it."""
    with taking() as taken:
        began = time.perf_counter()
        try:
            value = function(*args)
            seconds = time.perf_counter() - began
            data = cloudpickle.dumps(value)
        except BaseException as error:  # also SystemExit and the like: this process goes on
            root = error.__cause__ or error
            packed = PackedError.pack(error, name)
            short = is_out_of_memory(root)
            del error, root
            if short:
                _give_back()
            return "raised", packed, short, taken.pieces()
        return "done", data, is_plain(value), seconds, taken.pieces()


def _give_back() -> None:
    """Give memory that the frameworks of this process keep unused back to the card."""
    gc.collect()  # tensors in reference cycles hold memory too
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    if cupy is not None:
        cupy.get_default_memory_pool().free_all_blocks()


def _end_with(life: Connection) -> None:
    """End this process when the executor is gone: it never writes, so then the pipe is readable."""
    life.poll(None)
    os._exit(1)
