"""A master in an actor: found by name, and gone on from its journal when its process is killed."""

from __future__ import annotations

import math
import operator
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from click.testing import CliRunner
from ray.util.placement_group import placement_group_table

import agentic_ray as ar
from agentic_ray.cli.app import cli
from agentic_ray.errors import (
    InvalidArgumentError,
    InvalidParametersError,
    JobCancelledError,
    JobTimeoutError,
    JournalLockedError,
    MasterDiffersError,
    SessionError,
    TaskError,
    UnknownJobError,
    UnknownWorkloadError,
    WorkloadFileError,
)
from agentic_ray.master import JobState
from agentic_ray.runtime.processes import processes_of, session_name
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture
def workloads(tmp_path: Path) -> None:
    """Workloads of this test, registered in its process and sent to the actor."""

    def noted(params: Any) -> None:
        (tmp_path / f"ran-{params['name']}-{time.time_ns()}").touch()

    @ar.workload("sum", cache=False)
    def total(params: dict[str, Any]) -> Any:
        def work(x: int) -> float:
            if params.get("wait"):
                until(lambda: (tmp_path / "go").exists())
            return x * 0.1

        ar.stage("note", noted, params)
        return ar.map_reduce(work, range(20), operator.add)

    @ar.workload("boom")
    def boom(params: Any) -> None:
        raise ValueError("on purpose")


def runs(folder: Path, name: str) -> int:
    return len(list(folder.glob(f"ran-{name}-*")))


@pytest.mark.slow
def test_a_killed_master_is_started_anew_and_goes_on(tmp_path: Path, workloads: None) -> None:
    master = ar.start_master("phoenix", journal=tmp_path / "journal")
    try:
        assert any(one.role == "master" for one in processes_of(session_name()))
        done = master.submit("sum", {"name": "first"}, user="ada")
        expected = done.result(60)
        under_way = master.submit("sum", {"name": "second", "wait": True}, idempotency_key="k")
        waiting = [master.submit("sum", {"name": f"later{i}", "wait": True}) for i in range(9)]
        until(lambda: runs(tmp_path, "second"))
        with pytest.raises(JobTimeoutError, match="is running"):
            under_way.result(0.1)

        first_pid = master.pid()
        os.kill(first_pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        # a submit and a question that meet the death
        late = master.submit("sum", {"name": "late"})
        again = master.submit("sum", {"name": "second", "wait": True}, idempotency_key="k")
        assert again.id == under_way.id
        assert under_way.result(90).hex() == expected.hex()
        assert {job.result(90).hex() for job in (*waiting, late)} == {expected.hex()}
        assert master.pid() != first_pid

        found = ar.find_master("phoenix")
        assert found.job(done.id).result(60) == expected
        assert found.record(done.id).user == "ada"
        assert found.record(under_way.id).attempts == 2
        assert runs(tmp_path, "first") == 1
        assert runs(tmp_path, "second") == 1  # its first stage had finished
        assert len(found.jobs()) == 12
        assert {record.state for record in found.jobs()} == {JobState.SUCCEEDED}
        # what the killed process held of Ray's CPUs is held no more
        actor_id = ray.get_actor("phoenix", "agentic_ray")._actor_id.hex()
        until(lambda: not [g for g in placement_group_table().values() if held_by(g, actor_id)])
        # the same name is the same master, or is told not to be
        assert ar.start_master("phoenix", journal=tmp_path / "journal").pid() == master.pid()
        with pytest.raises(MasterDiffersError, match=r"another journal.*reload"):
            ar.start_master("phoenix", journal=tmp_path / "other")
    finally:
        master.close(drain=False)
    with pytest.raises(SessionError, match="no master 'phoenix'"):
        until(lambda: ar.find_master("phoenix") is None)


def held_by(group: dict[str, Any], actor_id: str) -> bool:
    return group["name"].startswith(actor_id) and group["state"] != "REMOVED"


@pytest.mark.slow
def test_errors_have_their_types(
    tmp_path: Path, workloads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgumentError, match="needs a name"):
        ar.start_master("", journal=tmp_path / "journal")
    with pytest.raises(SessionError, match="no master 'nobody'"):
        ar.find_master("nobody")
    master = ar.start_master("one", journal=tmp_path / "journal")
    try:
        with pytest.raises(UnknownWorkloadError, match="there are"):
            master.submit("what", 1)
        with pytest.raises(InvalidParametersError, match="data"):
            master.submit_task({"data": ["x"]})
        with pytest.raises(UnknownJobError):
            master.job("missing")
        with pytest.raises(TaskError, match="ValueError: on purpose"):
            master.submit("boom", 1).result(60)
        long = master.submit("sum", {"name": "long", "wait": True})
        until(lambda: long.status() == JobState.RUNNING)
        assert long.cancel()
        with pytest.raises(JobCancelledError):
            long.result(60)
        assert master.get_task_status(long.id)["state"] == "cancelled"
        assert master.statistics().finished[JobState.CANCELLED] == 1
        with pytest.raises(JournalLockedError, match="another master"):
            ar.start_master("two", journal=tmp_path / "journal")
        session = ar.get_session()
        with monkeypatch.context() as other:
            other.setattr(session, "settings", replace(session.settings, namespace="a team"))
            with pytest.raises(SessionError, match=r"no master 'one' .*'a team'"):
                ar.find_master("one")
            theirs = ar.start_master("one", journal=tmp_path / "another")
            assert theirs.pid() != master.pid()
            assert theirs.close(drain=False)
        assert ar.find_master("one").pid() == master.pid()
    finally:
        master.close(drain=False)


@pytest.mark.slow
def test_changed_workloads_are_rolled_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ar.workload("answer", cache=False)(lambda params: [1.0, math.nan])
    file = tmp_path / "more.py"
    file.write_text(
        "import agentic_ray as ar\n@ar.workload('more')\ndef more(params): return 'old'\n"
    )
    with pytest.raises(WorkloadFileError, match=r"nope\.py"):
        ar.start_master("reloaded", journal=tmp_path / "journal", workloads=["/nope.py"])
    with pytest.raises(SessionError, match="no master 'reloaded'"):
        until(lambda: ar.find_master("reloaded") is None)
    start: Any = partial(
        ar.start_master, "reloaded", journal=tmp_path / "journal", workloads=[file]
    )
    master = start()
    try:
        job = master.submit("answer", None)
        assert job.result(60)[0] == 1.0
        assert math.isnan(job.result(60)[1])
        with pytest.raises(SessionError, match="where the bundles"):
            job.placements()
        with pytest.raises(SessionError, match="where the bundles"):
            job.timeline()
        assert "<svg" not in job._repr_html_()
        assert master.submit("more", None).result(60) == "old"
        pid = master.pid()
        assert start().pid() == pid

        ar.workload("answer", replace=True, cache=False)(lambda params: "new")
        with pytest.raises(MasterDiffersError, match="another workload answer"):
            start()
        file.write_text(file.read_text().replace("old", "newer"))
        with pytest.raises(MasterDiffersError, match=r"another file .*more\.py"):
            start()
        with pytest.raises(WorkloadFileError):
            master.reload(workloads=["/nope.py"])
        assert master.submit("answer", {"still": 1}).result(60)[0] == 1.0
        master.reload(workloads=[file])
        assert master.submit("answer", None).result(60) == "new"
        assert master.submit("more", None).result(60) == "newer"

        # A second program is interrupted while it looks for the master: it lives on.
        def interrupted(self: Any) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(ar.RemoteMaster, "pid", interrupted)
            with pytest.raises(KeyboardInterrupt):
                start()
        assert master.pid() == start().pid() == pid
        shown = CliRunner().invoke(cli, ["master", "--help"])
        assert all(word in shown.output for word in ("start", "reload", "status", "stop"))
    finally:
        master.close(drain=False)
