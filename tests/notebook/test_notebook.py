"""A real Jupyter kernel: cluster table, map_reduce over a lambda, progress bar, interrupt."""

from __future__ import annotations

from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = [
    "import agentic_ray as ar, time\nar.init(num_cpus=2, progress_after_seconds=0.5)\nar.cluster()",
    "ar.map_reduce(lambda x: x * x, [1, 2, 3, 4, 5], lambda a, b: a + b)",
    "ar.map_reduce(lambda x: time.sleep(0.15) or x, range(20), lambda a, b: a + b)",
    "ar.shutdown()",
]


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    seen: list[list[Any]] = [[] for _ in CELLS]

    class Recorder(nbclient.NotebookClient):  # type: ignore[misc,name-defined]
        """Keeps every display update, because a finished bar leaves nothing to see."""

        def process_message(self, message: Any, cell: Any, index: int) -> Any:
            if message["msg_type"] in ("display_data", "update_display_data", "execute_result"):
                seen[index].append(message["content"]["data"])
            return super().process_message(message, cell, index)

    Recorder(notebook, timeout=120, kernel_name="python3").execute()
    return seen


@pytest.mark.slow
def test_the_cluster_is_shown_as_a_table(outputs: list[list[Any]]) -> None:
    assert "<table>" in outputs[0][-1]["text/html"]


@pytest.mark.slow
def test_functions_of_cells_are_sent_to_workers(outputs: list[list[Any]]) -> None:
    assert outputs[1][-1]["text/plain"] == "55"


@pytest.mark.slow
def test_long_work_shows_a_bar_that_moves_and_vanishes(outputs: list[list[Any]]) -> None:
    *shown, result = outputs[2]
    drawn = [data["text/html"] for data in shown]
    moving = {text for text in drawn if "<progress" in text}
    assert len(moving) > 1
    assert all('max="20"' in text for text in moving)
    assert drawn[-1] == ""
    assert result["text/plain"] == "190"
