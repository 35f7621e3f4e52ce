"""The magics of `%load_ext agentic_ray`, in a shell of IPython in this process."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("IPython")

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.notebook.timing import CellTime, device_times
from agentic_ray.pictures import Span


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "agentic_ray")
    shell.user_ns.update(ar=ar, xp=xp, np=np, operator=operator)
    yield shell
    InteractiveShell.clear_instance()


def _displayed(shell: InteractiveShell, cell: str) -> str:
    with capture_output() as captured:
        shell.run_cell(cell)
    return captured.stdout + "\n".join(str(one.data["text/plain"]) for one in captured.outputs)


def test_a_cell_on_the_cluster_is_timed_by_device(
    shell: InteractiveShell, ray_session: ar.Session, tmp_path: Path
) -> None:
    path = tmp_path / "cell.json"
    with capture_output() as captured:
        result = shell.run_cell(
            f"%%ar_time --timeline {path}\nprint('printed')\n"
            "total = ar.map_reduce(abs, range(-500, 500), operator.add)\ntotal"
        )
    assert result.success
    assert result.result == shell.user_ns["total"] == sum(map(abs, range(-500, 500)))
    assert "printed" in captured.stdout
    (shown,) = [one.data["text/plain"] for one in captured.outputs if "wall" in str(one.data)]
    assert shown.startswith("wall time ")
    assert "device" in shown
    node = ray_session.cluster().nodes[0].node_id[:8]
    assert f"{node} cpu" in shown
    events = json.loads(path.read_text())["traceEvents"]
    names = {event["name"] for event in events if event["ph"] == "X"}
    # (A bundle may hold leaves and the reduction above them; it is called after the latter.)
    assert names
    assert names <= {"map[abs+add]", "reduce[add].tree"}


def test_an_array_computed_in_this_process_stays_there_and_is_timed(
    shell: InteractiveShell, ray_session: ar.Session
) -> None:
    shown = _displayed(
        shell,
        "%%ar_time\nx = xp.random.default_rng(0).random((500_000,), chunks=125_000)\n"
        "x.sum().compute()",
    )
    assert "caller cpu" in shown
    assert " graph" not in shown.splitlines()[-2], "nothing was sent to the session"


def test_work_of_executors_and_jobs_is_timed(
    shell: InteractiveShell, ray_session: ar.Session
) -> None:
    """Of each cell its own, though one executor serves both."""
    shell.run_cell("pool = ar.Executor()\nassert pool.submit(abs, -1).result(60) == 1")
    for _ in range(2):
        shown = _displayed(shell, "%%ar_time\nassert list(pool.map(abs, range(4), chunksize=2))")
        assert "2 bundles of 2 graphs" in shown
    assert "nothing ran on the cluster" in _displayed(shell, "%%ar_time\n1 + 1")
    shown = _displayed(shell, "%%ar_time\nar.submit('default', {'data': [4, 5]}).result(60)")
    assert "of 1 job" in shown
    shell.run_cell("pool.shutdown()")


def test_a_cell_that_raises_is_an_error_and_is_timed(shell: InteractiveShell) -> None:
    with capture_output() as captured:
        result = shell.run_cell("%%ar_time\nbefore = 1\n1 / 0")
    assert isinstance(result.error_in_exec, ZeroDivisionError)
    assert shell.user_ns["before"] == 1
    assert "nothing ran on the cluster" in str(captured.outputs[0].data["text/plain"])
    assert "magics.py" not in captured.stdout


def test_a_semicolon_hides_the_result(shell: InteractiveShell) -> None:
    assert shell.run_cell("%%ar_time\n6 * 7;").result is None
    assert shell.run_cell("%%ar_time\n6 * 7").result == 42


def test_the_cluster_and_its_work_are_shown(
    shell: InteractiveShell, ray_session: ar.Session
) -> None:
    nodes = shell.run_cell("%ar_nodes").result
    assert isinstance(nodes, ar.ClusterState)
    job = ar.submit("default", {"data": [1, 2]})
    assert job.result(60) == 5
    text = _displayed(shell, "%ar_top --seconds 0.01")
    assert nodes.nodes[0].node_id[:12] in text
    assert f"job {job.id} default: succeeded" in text
    assert "expression:" in _displayed(shell, "%ar_explain xp.ones((3000, 3000)).sum()")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%ar_nodes x", "%ar_nodes takes no arguments"),
        ("%ar_explain", "%ar_explain needs an expression"),
        ("%ar_top -s -1", "number of seconds"),
        ("%ar_top -s inf", "number of seconds"),
    ],
)
def test_wrong_use_says_what_is_right(shell: InteractiveShell, line: str, message: str) -> None:
    with capture_output() as captured:
        result = shell.run_cell(line)
    assert not result.success
    assert message in captured.stdout + captured.stderr + str(result.error_in_exec)


def test_the_magics_can_be_unloaded_and_loaded_twice(shell: InteractiveShell) -> None:
    ar.load_ipython_extension(shell)
    assert "ar_time" in shell.magics_manager.magics["cell"]
    shell.run_line_magic("unload_ext", "agentic_ray")
    assert "ar_time" not in shell.magics_manager.magics["cell"]
    assert "ar_nodes" not in shell.magics_manager.magics["line"]


def test_the_seconds_and_bytes_of_each_device_are_added_up() -> None:
    spans = (
        Span("a", "f", "n1", "cpu", 0.0, 0.0, 1.0, 2.0, 10, 1),
        Span("b", "f", "n1", "cpu", 0.0, 1.0, 4.0, None, 20, None),
        Span("c", "f", "n2", "GPU-123456789", 0.0, 0.0, 0.5, 0.5),
    )
    first, second = device_times(spans)
    assert (first.tasks, first.seconds, first.predicted, first.predicted_seconds) == (2, 4, 1, 2)
    assert (first.made_bytes, first.moved_bytes, second.seconds) == (30, 1, 0.5)
    shown = CellTime(4.5, 2, spans)
    assert repr(shown).splitlines() == [
        "wall time 4.5 s; 3 bundles of 2 graphs",
        "device  bundles  took    predicted  made  moved here",
        "n1 cpu  2        4 s     2 s for 1  30 B  1 B",
        "n2 gpu  1        500 ms  500 ms     0 B   0 B",
    ]
    assert "<svg" in shown._repr_html_()
    assert "<svg" not in CellTime(4.5, 0, ())._repr_html_()
