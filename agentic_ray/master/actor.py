"""`Master` as a detached, named actor of a Ray cluster: it outlives the program that started it.

`MasterActor` is what runs there, `RemoteMaster` what a program holds of it. Ray starts the actor
again when its process dies; the new one goes on from the journal.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle
from ray.util.placement_group import (
    PlacementGroup,
    PlacementGroupID,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from agentic_ray.errors import (
    AgenticRayError,
    InvalidArgumentError,
    MasterDiffersError,
    SerializationError,
    SessionError,
    WorkloadFileError,
)
from agentic_ray.ids import Ids, current_ids, marked
from agentic_ray.logged import set_up
from agentic_ray.master.described import Description, digests, file_digests
from agentic_ray.master.distant import Listed, listed
from agentic_ray.master.handle import Job
from agentic_ray.master.jobs import JobRecord, without_exception
from agentic_ray.master.journal import is_url, journal_file
from agentic_ray.master.logs import LogLine
from agentic_ray.master.master import Master
from agentic_ray.master.named import register
from agentic_ray.master.named.uploads import FOLDER
from agentic_ray.master.spans import Tracing
from agentic_ray.master.statistics import Statistics
from agentic_ray.master.steps import Position, Steps, outline
from agentic_ray.master.traces import Trace
from agentic_ray.master.userfiles import load_workloads
from agentic_ray.master.workloads import DEFAULT, Registry, registry
from agentic_ray.runtime import get_session
from agentic_ray.runtime.nodes import owner_of_groups
from agentic_ray.schedule.metrics import PlacementRecord

_CALLS = 32
_WAITS = 128
_WAIT_SECONDS = 2.0
_NO_IDS = Ids()


@dataclass(frozen=True, slots=True)
class Packed:
    """Workloads as they are sent, and the digest of each."""

    content: bytes
    digests: Mapping[str, str]


class MasterActor:
    """The actor: a `Master` on a journal, opened anew by whoever asks if it could not be."""

    def __init__(
        self, journal: str, workloads: Packed, files: Sequence[str], options: Mapping[str, Any]
    ) -> None:
        self._journal = journal
        self._options = dict(options)
        if (data := self._options.get("data")) is not None:
            os.environ[FOLDER] = str(data)  # (before there are processes of jobs)
        if (form := self._options.get("log_format")) is not None:
            set_up(form)
        self._tracing: Tracing | None = None
        self._steps = Steps()
        self._lock = threading.Lock()
        self._opened: Master | None = None
        self._workloads = Registry()
        self._files: dict[str, str] = {}
        self._told: Mapping[str, str] = {}
        self._refused: Exception | None = None
        self._release_held_cpus()
        # What is raised is raised again to whoever asks. Here it would end the actor for good,
        # and hide what it is.
        try:
            self._load(workloads, files)
        except Exception as error:
            self._refused = error
            return
        try:
            self._master()
        except Exception:
            return

    def reload(self, workloads: Packed, files: Sequence[str]) -> Description:
        """Take these workloads in place of the earlier ones; nothing changes if that fails."""
        self._load(workloads, files)
        self._refused = None
        return self.describe()

    def describe(self) -> Description:
        return Description(self._journal, self._options, self._told, self._files)

    def _load(self, packed: Packed, files: Sequence[str]) -> None:
        """Files register their workloads in this process's registry; jobs get them from one of
        our own, which changes at one moment."""
        with self._lock:
            found = file_digests(files)
            register(registry)
            before = registry.snapshot()
            registry.restore({name: made for name, made in before.items() if made.builtin})
            try:
                for path in files:
                    load_workloads(path)
                new = {**registry.snapshot(), **cloudpickle.loads(packed.content)}
            except BaseException:
                registry.restore(before)
                raise
            registry.restore(new)
            self._workloads.restore(new)
            self._files = found
            # By whoever sent them: a function that has been sent looks another here.
            self._told = {**digests(new), **packed.digests}

    def pid(self) -> int:
        self._master()
        return os.getpid()

    def submit(
        self, workload: str, params: Any, options: Mapping[str, Any], ids: Ids = _NO_IDS
    ) -> str:
        with marked(ids):
            return self._master().submit(workload, params, **options).id

    def accept(
        self, workload: str, params: Any, options: Mapping[str, Any], ids: Ids = _NO_IDS
    ) -> JobRecord:
        with marked(ids):
            return outline(self._master().submit(workload, params, **options).record)

    def retry(self, job_id: str, ids: Ids = _NO_IDS) -> JobRecord:
        with marked(ids):
            return outline(self._master().retry(job_id).record)

    def record(self, job_id: str) -> JobRecord:
        return without_exception(self._master().record(job_id))

    def outline(self, job_id: str) -> JobRecord:
        return without_exception(self._master().outline(job_id))

    def stored_result(self, job_id: str) -> bytes | None:
        found = self._master().stored_result(self._master().outline(job_id))
        return found.read_bytes() if isinstance(found, Path) else found

    def page(self, before: int | None, owner: str | None, count: int) -> list[JobRecord]:
        return [outline(record) for record in self._master().page(before, owner, count)]

    def count(self, owner: str | None) -> int:
        return self._master().count(owner)

    def progress(self) -> dict[str, tuple[int, int]]:
        return self._master().progress()

    def trace(self, job_id: str) -> Trace:
        return self._master().trace(job_id)

    def catalogue(self) -> list[Listed]:
        """The workloads, as they are told to who cannot run them."""
        return [listed(each) for each in self._workloads.snapshot().values()]

    @ray.method(concurrency_group="waits")  # type: ignore[untyped-decorator]
    def steps(
        self, known: Position | None, seconds: float
    ) -> tuple[Position, list[JobRecord], bool]:
        """The steps that jobs have taken since, see `Steps.after`."""
        self._master()
        return self._steps.after(known, seconds)

    @ray.method(concurrency_group="waits")  # type: ignore[untyped-decorator]
    def wait(self, job_id: str, timeout_seconds: float) -> JobRecord:
        return without_exception(self._master().wait(job_id, timeout_seconds))

    def cancel(self, job_id: str) -> bool:
        return self._master().cancel(job_id)

    def logs(self, job_id: str, first: int) -> list[LogLine]:
        return self._master().logs(job_id, first)

    def jobs(self) -> list[JobRecord]:
        return [without_exception(record) for record in self._master().jobs()]

    def statistics(self) -> Statistics:
        return self._master().statistics()

    def close(self, drain: bool, timeout_seconds: float | None) -> bool:
        stopped = self._master().close(drain, timeout_seconds)
        if self._tracing is not None:
            self._tracing.close()
        return stopped

    def _master(self) -> Master:
        with self._lock:
            if self._refused is not None:
                raise self._refused
            if self._opened is None:
                options = {"runners": 2, **self._options}
                for own in ("data", "log_format", "otel"):
                    options.pop(own, None)
                if self._options.get("otel"):
                    self._tracing = self._tracing or Tracing("agentic-ray-master")
                    options["tracer"] = self._tracing.tracer
                self._opened = Master(journal=self._journal, workloads=self._workloads, **options)
                self._opened.watch(self._steps.add)
            return self._opened

    def _release_held_cpus(self) -> None:
        """Give back what an earlier process of this actor held of Ray's CPUs.

        Ray keeps a restarting actor's placement groups, and nobody has their handles any more.
        """
        for found in placement_group_table().values():
            if found["state"] != "REMOVED" and found["name"].startswith(f"{owner_of_groups()} "):
                group_id = PlacementGroupID.from_hex(found["placement_group_id"])
                remove_placement_group(PlacementGroup(group_id))


class RemoteJob(Job):
    """A job of a master in another process."""

    def placements(self) -> list[PlacementRecord]:
        """Refused: where bundles ran is known only in the process of the master.

        Raises
        ------
        SessionError
            Always; `Job.metrics` has the figures of a finished job.
        """
        raise SessionError(
            "where the bundles of a job ran is known in its master's process only; "
            "metrics has the job's figures"
        )


class RemoteMaster:
    """A master that runs as an actor, found by its name. Safe to use from any thread.

    Calls that meet the death of its process are made again once Ray has started it anew; a
    repeated submit is known by its idempotency key, and is the same job.

    Examples
    --------
    >>> import agentic_ray as ar, tempfile
    >>> master = ar.start_master("of an example", journal=tempfile.mkdtemp())
    >>> master.submit("default", {"data": [1, 2]}).result()
    5
    >>> master.close()
    True
    """

    def __init__(self, name: str, actor: Any) -> None:
        self.name = name
        self._actor = actor

    def submit(
        self,
        workload: str | Callable[[Any], Any],
        params: Any,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Job:
        """As `Master.submit`."""
        if not isinstance(workload, str):
            workload = registry.name_of(workload)
        options["idempotency_key"] = idempotency_key or f"call-{uuid.uuid4().hex}"
        return RemoteJob(self, self._call("submit", workload, params, options, current_ids()))

    def submit_task(self, task_data: Mapping[str, Any]) -> str:
        """As `Master.submit_task`."""
        return self.submit(DEFAULT, task_data).id

    def get_task_status(self, task_id: str) -> dict[str, Any]:
        """As `Master.get_task_status`."""
        return self.record(task_id).to_dict()

    def record(self, job_id: str) -> JobRecord:
        """As `Master.record`."""
        found: JobRecord = self._call("record", job_id)
        return found

    def job(self, job_id: str) -> Job:
        """As `Master.job`."""
        self.record(job_id)
        return RemoteJob(self, job_id)

    def logs(self, job_id: str, first: int = 0) -> list[LogLine]:
        """As `Master.logs`."""
        found: list[LogLine] = self._call("logs", job_id, first)
        return found

    def jobs(self) -> list[JobRecord]:
        """As `Master.jobs`."""
        found: list[JobRecord] = self._call("jobs")
        return found

    def statistics(self) -> Statistics:
        """As `Master.statistics`; counted from 0 when the process was started anew."""
        found: Statistics = self._call("statistics")
        return found

    def wait(self, job_id: str, timeout_seconds: float | None = None) -> JobRecord:
        """As `Master.wait`; goes on while the process is started anew."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            left = _WAIT_SECONDS if deadline is None else deadline - time.monotonic()
            # Short waits, so that no place in the actor is held for those who have gone.
            found: JobRecord = self._call("wait", job_id, max(0.0, min(left, _WAIT_SECONDS)))
            if found.state.finished or left <= 0:
                return found

    def cancel(self, job_id: str) -> bool:
        """As `Master.cancel`."""
        return bool(self._call("cancel", job_id))

    def close(self, drain: bool = True, timeout_seconds: float | None = None) -> bool:
        """End the master and its actor, for everybody. As `Master.close`."""
        stopped = bool(self._call("close", drain, timeout_seconds))
        ray.kill(self._actor, no_restart=True)
        return stopped

    def reload(self, *, workloads: Sequence[str | Path] = ()) -> None:
        """Roll out changed workloads: from now on jobs that start run these.

        Those that run go on as they began. A job that waits, and whose workload is not there any
        more or has another version, fails when it is its turn.

        Parameters
        ----------
        workloads : sequence of path
            Files to load there in place of the earlier ones. What this program has registered is
            sent along.

        Raises
        ------
        WorkloadFileError, SerializationError
            They cannot be loaded or sent; the master goes on with those it has.
        """
        self._call("reload", _packed(), _paths(workloads))

    def describe(self) -> Description:
        """Return its journal, options and workloads."""
        found: Description = self._call("describe")
        return found

    def pid(self) -> int:
        """The number of its process now."""
        return int(self._call("pid"))

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return what a method of `MasterActor` returns, for `gateway`."""
        return self._call(method, *arguments)

    def __repr__(self) -> str:
        return f"<RemoteMaster {self.name}>"

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return ray.get(getattr(self._actor, method).remote(*arguments))
        except ray.exceptions.RayTaskError as error:
            raise (error.cause or error) from None  # what the master itself raised
        except ray.exceptions.RayActorError as error:
            raise SessionError(f"master {self.name!r} is gone: {_in_short(error)}") from error
        except ray.exceptions.RayError as error:  # its node is lost, or Ray itself
            raise SessionError(
                f"master {self.name!r} cannot be reached: {_in_short(error)}"
            ) from error


def start_master(
    name: str = "master",
    *,
    journal: str | Path,
    workloads: Sequence[str | Path] = (),
    **options: Any,
) -> RemoteMaster:
    """A `Master` as a detached actor of the Ray cluster; the one of this name if it runs already
    with the same journal, and with the workloads and options that this program has.

    It goes on when this program ends, until `RemoteMaster.close`, for as long as the cluster is
    there. When its process dies Ray starts it again, and it goes on from its journal.

    Parameters
    ----------
    name : str
        By which `find_master` finds it, among the masters of the setting ``namespace``.
    journal : path or URL
        As for `Master`. A path is one of the node that this program runs on, and the actor stays
        on that node.
    workloads : sequence of path
        Files to load there, see `load_workloads`. What this program has registered is sent along.
    **options
        Further arguments of `Master`, and ``data``: the folder of the files that users have
        uploaded to services of this master, on its node; ``log_format`` and ``otel`` as of
        `ServerSettings`. Functions run in processes of their own
        unless ``runners=0`` is given.

    Raises
    ------
    MasterDiffersError
        One of this name runs with another journal, or lacks workloads or options of ours.
    WorkloadFileError
        A file of workloads cannot be loaded.
    SerializationError
        What this program has registered cannot be sent; put it in a file.
    JournalError
        The journal cannot be used.
    SessionError
        The actor does not start.

    Examples
    --------
    >>> import agentic_ray as ar, tempfile
    >>> master = ar.start_master("started", journal=tempfile.mkdtemp())
    >>> job = ar.find_master("started").submit("default", {"data": [1, 2]})
    >>> master.job(job.id).result()
    5
    >>> master.close()
    True
    """
    if not isinstance(name, str) or not name:
        raise InvalidArgumentError(f"a master needs a name, not {name!r}")
    where: dict[str, Any] = {"namespace": get_session().settings.namespace}
    if not is_url(journal):
        journal_file(journal)  # (an empty text would become the current folder)
        journal = Path(journal).expanduser().absolute()
        node_id = ray.get_runtime_context().get_node_id()
        where["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=False)
    files, packed = _paths(workloads), _packed()
    try:
        wanted = Description(str(journal), options, packed.digests, file_digests(files))
    except OSError as error:
        raise WorkloadFileError(f"workloads: {error}") from error
    made = ray.remote(
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=_CALLS,
        concurrency_groups={"waits": _WAITS},
    )(MasterActor).options(name=name, lifetime="detached", **where)
    try:
        actor = made.remote(str(journal), packed, files, options)
    except ValueError:
        return _checked(find_master(name), wanted)  # the name is taken
    master = RemoteMaster(name, actor)
    try:
        master.pid()
    except AgenticRayError:
        # It cannot run. (Where this program is interrupted, others may have found it meanwhile.)
        ray.kill(actor, no_restart=True)
        raise
    return master


def _checked(master: RemoteMaster, wanted: Description) -> RemoteMaster:
    """The master that is there, if it is what is wanted."""
    lacks = master.describe().lacks(wanted)
    if lacks:
        raise MasterDiffersError(
            f"master {master.name!r} runs already, with {', '.join(lacks)}; find_master has it as "
            "it is, its reload() (or `agentic-ray master reload`) rolls out changed workloads, and "
            "another name starts another master"
        )
    master.pid()
    return master


def _paths(workloads: Sequence[str | Path]) -> list[str]:
    return [str(Path(path).expanduser().absolute()) for path in workloads]


def _in_short(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__


def find_master(name: str = "master") -> RemoteMaster:
    """Return the master that was started with this name, in the setting ``namespace``.

    Raises
    ------
    SessionError
        There is none in that namespace of the cluster.

    Examples
    --------
    >>> import agentic_ray as ar
    >>> try:
    ...     ar.find_master("nobody has started this one")
    ... except ar.errors.SessionError as error:
    ...     print(str(error).split(" (")[0])
    no master 'nobody has started this one' in this cluster
    """
    namespace = get_session().settings.namespace
    try:
        return RemoteMaster(name, ray.get_actor(name, namespace))
    except ValueError:
        raise SessionError(
            f"no master {name!r} in this cluster (namespace {namespace!r}); "
            "agentic_ray.start_master starts one"
        ) from None


def _packed() -> Packed:
    own = {name: made for name, made in registry.snapshot().items() if not made.builtin}
    try:
        return Packed(cloudpickle.dumps(own), digests(own))
    except Exception as error:  # pickle raises whatever the objects' hooks raise
        raise SerializationError(
            f"the workloads {', '.join(sorted(own))} cannot be sent to the master's process: "
            f"{error}; put them in a file and pass workloads=[FILE]"
        ) from error
