"""Files as input of `map_reduce`: text lines, CSV and Parquet, decomposed by fixed rules.

A source lists its parts; the executor that works on a part reads it. Nothing here knows of Ray, and
pyarrow is imported by the formats that need it, when they need it.
"""

from __future__ import annotations

from collections.abc import Callable

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.sources import _csv, _parquet
from agentic_ray.sources._base import Part, Source, Unit
from agentic_ray.sources._csv import Csv, csv
from agentic_ray.sources._files import Paths, find_files
from agentic_ray.sources._parquet import Parquet, parquet
from agentic_ray.sources._text import TextLines, text_lines

__all__ = [
    "Csv",
    "Parquet",
    "Part",
    "Source",
    "TextLines",
    "Unit",
    "csv",
    "open_source",
    "parquet",
    "text_lines",
]


def open_source(path: Paths) -> Source:
    """Return the source for files, by the ends of their names.

    ``.csv`` and ``.tsv`` (also with ``.gz`` or ``.zip``) are read by `csv`, ``.parquet`` and
    ``.pq`` by `parquet`, everything else by `text_lines`, all with their defaults.

    Parameters
    ----------
    path : path or sequence of paths
        Files, directories or patterns; all files must be of one kind.

    Raises
    ------
    FileNotFoundError
        A file does not exist, a directory is empty, a pattern matches nothing.
    InvalidArgumentError
        The files are of several kinds.

    Examples
    --------
    >>> import agentic_ray as ar, pathlib, tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "server.log"
    >>> _ = file.write_text("one\\nthree\\n")
    >>> ar.map_reduce(len, ar.sources.open_source(file))
    [3, 5]
    """
    files = find_files(path)
    kinds = {_kind(file): file for file in reversed(files)}
    if len(kinds) > 1:
        examples = ", ".join(f"{kind}: {file}" for kind, file in sorted(kinds.items()))
        raise InvalidArgumentError(f"files of several kinds cannot be one source ({examples})")
    open_kind: dict[str, Callable[[Paths], Source]] = {
        "csv": csv,
        "tsv": lambda found: csv(found, delimiter="\t"),
        "parquet": parquet,
        "text": text_lines,
    }
    return open_kind[next(iter(kinds))](files)


def _kind(file: str) -> str:
    name = file.lower()
    if name.endswith(_parquet.SUFFIXES):
        return "parquet"
    if name.endswith(_csv.CSV_SUFFIXES):
        return "csv"
    return "tsv" if name.endswith(_csv.TSV_SUFFIXES) else "text"
