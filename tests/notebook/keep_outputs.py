"""Runs the notebooks in examples/ and keeps their outputs in the files: `make notebooks`.

Each gets a kernel and an empty folder of its own. What Ray tells of the machine is not kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbclient
import nbformat

EXAMPLES = Path(__file__).parents[2] / "examples"
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def keep_outputs(path: Path) -> None:
    """Run a notebook and write it back.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        A cell raised; the file stays as it is.
    """
    book = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(
            book,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": folder}},
        ).execute()
    for cell in book.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if not _of_the_machine(one)]
    book.metadata = nbformat.from_dict(_METADATA)
    nbformat.write(book, path)


def _of_the_machine(output: Any) -> bool:
    """Whether Ray wrote it: to standard error, or in the name of the raylet."""
    return output.get("name") == "stderr" or "(raylet)" in output.get("text", "")


if __name__ == "__main__":
    os.environ.setdefault("RAY_ADDRESS", "local")
    for name in sys.argv[1:] or sorted(str(path) for path in EXAMPLES.glob("*.ipynb")):
        print(name, flush=True)
        keep_outputs(Path(name))
