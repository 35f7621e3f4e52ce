"""The backend of joblib: what scikit-learn and others run in parallel goes to worker processes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

import joblib
from joblib._parallel_backends import AutoBatchingMixin
from joblib.parallel import ParallelBackendBase

from agentic_ray.errors import InvalidTypeError
from agentic_ray.graph import capture
from agentic_ray.interop.calls.engine import Call, Engine
from agentic_ray.interop.calls.parcels import SharedArrays, pack_arguments
from agentic_ray.interop.executor import FutureReceiver
from agentic_ray.runtime import get_session

NAME: Final = "agentic_ray"
_JOBLIB_OPTIONS: Final = frozenset({"max_nbytes", "temp_folder", "mmap_mode", "verbose", "context"})


def register() -> None:
    """Make ``joblib.parallel_config("agentic_ray")`` known; see `interop.register_joblib`."""
    joblib.register_parallel_backend(NAME, Backend)


def _run(batch: Callable[[], Any]) -> Any:
    """Run the calls that joblib has put in a batch."""
    return batch()


class Backend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """Backend of joblib over the session's worker processes.

    Arrays of a megabyte and more are put in the object store once for each ``Parallel`` call, and
    functions get them read-only, as they do from loky. Parallel calls inside a function run in
    threads of its process, those inside these one after the other, as under loky. joblib cuts
    short calls into batches that take a fraction of a second.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(
        self,
        *,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        if self.backend_kwargs:
            unknown = ", ".join(self.backend_kwargs)
            raise InvalidTypeError(f"the backend {NAME!r} has no option {unknown}")
        self._initializer = (initializer, initargs)
        self._engine: Engine | None = None
        self._shared = SharedArrays()
        self._workers: int | None = None
        self._telling = threading.RLock()  # held while joblib is told of a batch's end

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return the number of workers that ``n_jobs`` means here; -1 means all slots."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        slots = get_session().slots
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(slots + 1 + n_jobs, 1)

    def configure(
        self,
        n_jobs: int | None = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Any,
    ) -> int:
        """Prepare for a ``Parallel`` call; return its number of workers.

        Each worker process calls ``initializer(*initargs)`` before its first batch. (The size of
        arrays that are shared, and how, is this backend's own: joblib's options for that are not
        looked at.)

        Raises
        ------
        InvalidTypeError
            There is an option that is neither of joblib's nor known here.
        """
        unknown = options.keys() - _JOBLIB_OPTIONS
        if unknown:
            raise InvalidTypeError(f"the backend {NAME!r} has no option {min(unknown)}")
        self.parallel = parallel
        if initializer is not None:
            self._initializer = (initializer, initargs)
        workers = self.effective_n_jobs(n_jobs)
        self._workers = workers if workers < get_session().slots else None
        return workers

    def start_call(self) -> None:
        """Begin a ``Parallel`` call: arrays may have changed since the last."""
        self._shared = SharedArrays()
        # joblib (1.6) keeps the batches that a failed call has cut and not sent, and would send
        # them as the first of this call.
        left = self.parallel._ready_batches
        while True:
            try:
                left.get_nowait()
            except queue.Empty:
                return

    def stop_call(self) -> None:
        """End a ``Parallel`` call: its arrays are not needed any more."""
        self._shared = SharedArrays()

    def submit(
        self, func: Callable[[], Any], callback: Callable[[Future[Any]], object] | None = None
    ) -> Future[Any]:
        """Send a batch of joblib's; ``callback`` is called with the future when it has ended."""
        future: Future[Any] = Future()
        try:
            packed = pack_arguments((func,), {}, self._shared)
        except Exception as error:  # raised where joblib retrieves the result
            future.set_running_or_notify_cancel()
            future.set_exception(error)
            if callback is not None:
                callback(future)
            return future
        engine = self._engine
        if engine is None:
            initializer, initargs = self._initializer
            engine = self._engine = Engine(
                workers=self._workers, initializer=initializer, initargs=initargs
            )
        if callback is not None:
            future.add_done_callback(lambda ended: self._tell(engine, callback, ended))
        engine.add([Call(capture(_run), packed, FutureReceiver(future))])
        return future

    def _tell(
        self, engine: Engine, callback: Callable[[Future[Any]], object], ended: Future[Any]
    ) -> None:
        """Tell joblib that a batch has ended, unless its ``Parallel`` call is over: joblib would
        count the batch for the next call."""
        with self._telling:
            if engine is self._engine:
                callback(ended)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """Return the results of a batch, or raise its exception."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Cancel all batches: one has failed, or its time is over."""
        self._end()

    def terminate(self) -> None:
        """Cancel the calls that have not ended, and release the arrays put in the object store."""
        self._end()
        self.reset_batch_stats()

    def _end(self) -> None:
        with self._telling:  # once `Parallel` goes on, joblib is told nothing more
            engine, self._engine = self._engine, None
        self._shared = SharedArrays()
        if engine is not None:
            engine.stop()
