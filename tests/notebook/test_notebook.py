"""A real Jupyter kernel: tables, progress, what tasks print, how jobs and errors are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

pytestmark = pytest.mark.slow

CELLS = {
    "start": """
import agentic_ray as ar, asyncio, time, numpy as np
import agentic_ray.array as xp
ar.init(num_cpus=2, progress_after_seconds=0.5)
x = xp.asarray(np.zeros((4, 4)), chunks=(2, 4))
ar.cluster()""",
    "functions": """
def fail(x):
    if x == 3:
        raise ValueError(f"bad value {x}")
    return x

def fail_block(block):
    raise KeyError("no block")
""",
    "sum": "ar.map_reduce(lambda x: x * x, [1, 2, 3, 4, 5], lambda a, b: a + b)",
    "bar": "ar.map_reduce(lambda x: time.sleep(0.15) or x, range(20), lambda a, b: a + b)",
    "print": "ar.map_reduce(lambda x: print('line', x // 10), range(30))",
    "silent": "1 + 1",
    "print in blocks": """
def tell(block):
    print("block")
    return block
np.asarray(xp.map_blocks(tell, x, dtype=float)).sum()""",
    "error": "ar.map_reduce(fail, range(5))",
    "error in a block": "float(xp.sum(xp.map_blocks(fail_block, x, dtype=float)))",
    "argument": "ar.map_reduce(fail, range(5), chunk_size=-1)",
    "array argument": "x + xp.ones((3,))",
    "await": "await ar.map_reduce_job(lambda x: print('awaited') or x, [1, 2])",
    "job": "job = ar.map_reduce_job(fail, range(2))\njob.result()\njob",
    "submit": """
import sys
@ar.workload("notebook", replace=True)
def workload(params):
    time.sleep(1)
    return sys.stdout.parent_header["msg_id"]
submitted = ar.submit("notebook", {})
here = sys.stdout.parent_header["msg_id"]""",
    "wait": "submitted.result() == here != sys.stdout.parent_header['msg_id']",
    "all frames": """
ar.shutdown()
ar.init(num_cpus=2, full_tracebacks=True)
ar.map_reduce(fail, [3])""",
    "end": "ar.shutdown()",
}
_COLOURS = re.compile("\x1b" + r"\[[0-9;]*m")


@dataclass
class Seen:
    """What a cell showed."""

    data: list[Any] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    error: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def cells() -> dict[str, Seen]:
    sources = [nbformat.v4.new_code_cell(source.strip()) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=sources)
    seen = [Seen() for _ in CELLS]

    class Recorder(nbclient.NotebookClient):  # type: ignore[misc,name-defined]
        """Keeps every display update, because a finished bar leaves nothing to see."""

        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            kind, content = message["msg_type"], message["content"]
            if kind in ("display_data", "update_display_data", "execute_result"):
                seen[index].data.append(content["data"])
            return super().process_message(message, cell, index)

    Recorder(notebook, timeout=170, kernel_name="python3", allow_errors=True).execute()
    for cell, record in zip(notebook.cells, seen, strict=True):
        for output in cell.outputs:
            if output.output_type == "stream":
                setattr(record, output.name, getattr(record, output.name) + output.text)
            elif output.output_type == "error":
                record.error = _COLOURS.sub("", "\n".join(output.traceback)).splitlines()
    return dict(zip(CELLS, seen, strict=True))


def test_the_cluster_is_shown_as_a_table(cells: dict[str, Seen]) -> None:
    assert "<table>" in cells["start"].data[-1]["text/html"]


def test_functions_of_cells_are_sent_to_workers(cells: dict[str, Seen]) -> None:
    assert cells["sum"].data[-1]["text/plain"] == "55"


def test_long_work_shows_a_bar_that_moves_and_vanishes(cells: dict[str, Seen]) -> None:
    *shown, result = cells["bar"].data
    drawn = [data["text/html"] for data in shown]
    moving = {text for text in drawn if "<progress" in text}
    assert len(moving) > 1
    assert all('max="20"' in text for text in moving)
    assert drawn[-1] == ""
    assert result["text/plain"] == "190"


def test_what_tasks_print_arrives_in_their_cell(cells: dict[str, Seen]) -> None:
    lines = cells["print"].stdout.splitlines()
    assert sorted(lines) == sorted(f"line {n}" for n in (0, 1, 2) for _ in range(10))
    assert cells["silent"].stdout == ""
    assert cells["print in blocks"].stdout == "block\nblock\n"
    assert cells["await"].stdout == "awaited\nawaited\n"


def test_what_a_job_prints_belongs_to_the_cell_that_submitted_it(cells: dict[str, Seen]) -> None:
    # (nbclient drops what arrives for a cell that has ended; a notebook shows it there.)
    assert cells["wait"].data[-1]["text/plain"] == "True"


@pytest.mark.parametrize(
    ("name", "last", "function"),
    [
        ("error", "ValueError: bad value 3", "raise ValueError"),
        ("error in a block", "KeyError: 'no block'", "raise KeyError"),
        ("argument", "InvalidArgumentError: chunk_size must be at least 1, not -1", "chunk_size"),
        ("array argument", "ValueError: add: operands could not be broadcast", "xp.ones"),
    ],
)
def test_an_error_is_short_and_shows_the_lines_of_the_user(
    cells: dict[str, Seen], name: str, last: str, function: str
) -> None:
    lines = cells[name].error
    text = "\n".join(lines)
    assert len(lines) <= 16, text
    assert "agentic_ray/" not in text
    assert last in text
    assert function in text


def test_where_it_failed_is_told(cells: dict[str, Seen]) -> None:
    assert cells["error"].error[-1].startswith("while running 'map[fail]' on chunk")
    assert "element 3 of the input" in cells["error"].error[-1]


def test_all_frames_are_shown_where_they_are_wanted(cells: dict[str, Seen]) -> None:
    text = "\n".join(cells["all frames"].error)
    assert "mapreduce/kernels.py" in text
    assert "ValueError: bad value 3" in text


def test_a_job_is_shown_with_its_state(cells: dict[str, Seen]) -> None:
    shown = cells["job"].data[-1]
    assert "map_reduce fail: succeeded, 2 of 2 elements" in shown["text/plain"]
    assert "succeeded" in shown["text/html"]
