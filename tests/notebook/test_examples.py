"""The notebooks in examples/ run, and show what their files keep.

One kernel runs all of them, each with a clean namespace and a folder of its own: a Ray for each
would take most of the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

pytestmark = pytest.mark.slow

BOOKS = {
    path.stem: path for path in sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))
}


def _code(book: Any) -> list[Any]:
    return [cell for cell in book.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The code cells of each notebook, run."""
    cells: list[Any] = []
    parts: dict[str, tuple[int, int]] = {}
    for name, path in BOOKS.items():
        folder = str(tmp_path_factory.mktemp(name))
        start = f"%reset -f\nimport os\nos.chdir({folder!r})\ndel os"
        cells.append(nbformat.v4.new_code_cell(start))
        book = _code(nbformat.read(path, 4))
        parts[name] = len(cells), len(cells) + len(book)
        for cell in book:
            cell.outputs = []
        cells += book
    whole = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(whole, timeout=240, kernel_name="python3", allow_errors=True).execute()
    return {name: whole.cells[slice(*part)] for name, part in parts.items()}


def _shown(cell: Any) -> Iterator[tuple[str, ...]]:
    """What a cell shows, in kind: progress bars and the lines on standard error come and go."""
    for output in cell.outputs:
        if output.output_type in ("display_data", "execute_result"):
            data = output["data"]
            if data.get("text/plain") or data.get("image/png"):
                yield (output.output_type, *sorted(data))
        elif output.output_type == "error":
            yield ("error", output.ename, output.evalue)
        elif output.name == "stdout" and "(raylet)" not in output.text:
            yield ("printed",)


@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_runs_and_shows_what_its_file_keeps(
    ran: dict[str, list[Any]], name: str
) -> None:
    kept = _code(nbformat.read(BOOKS[name], 4))
    assert all(cell.execution_count for cell in kept), "make notebooks"
    for cell, before in zip(ran[name], kept, strict=True):
        # (Ray may print lines of its own where a process dies.)
        extra = set(_shown(cell)) ^ set(_shown(before))
        assert extra <= {("printed",)} - set(_shown(before)), cell.source


@pytest.mark.parametrize("name", BOOKS)
def test_a_file_tells_nothing_of_the_machine_it_was_run_on(name: str) -> None:
    text = BOOKS[name].read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|work|tmp|Users)/|site-packages", text)
    assert "stderr" not in text
    book = nbformat.read(BOOKS[name], 4)
    nbformat.validate(book)
    assert len(text) < 200_000
