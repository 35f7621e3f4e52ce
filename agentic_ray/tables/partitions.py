"""Columns whose values are names of folders, such as ``year=2013``.

pyarrow makes the names and reads them. A name has no type, so the manifest of a table that this
package has written keeps the types. Other folders' types are given by the caller or guessed.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError, SourceError
from agentic_ray.shown import cut_line
from agentic_ray.tables.files import MANIFEST, Origin
from agentic_ray.tables.manifests import schema_in
from agentic_ray.tables.stores import reaching

_LONGEST_NAME: Final = 255
"""Most bytes of a name in Linux's file systems."""


# --- writing ----------------------------------------------------------------------------------


def check_partitions(table: pa.Table, names: Sequence[str]) -> None:
    """Refuse values that reading would not give back if they were names of folders.

    Raises
    ------
    InvalidArgumentError
        A column's name, or a value, cannot be read back: the text ``__HIVE_DEFAULT_PARTITION__``
        (the name for null), text with a NUL, and whatever makes a name of more than 255 bytes.
    InvalidTypeError
        A column has a type that names of folders cannot have, such as a decimal.
    """
    for name in names:
        if not name or name.startswith(".") or re.search("[=/\0]", name):
            raise InvalidArgumentError(
                f"a column called {name!r} cannot be names of folders: {name}=… is read otherwise"
            )
        if pa.types.is_nested(table[name].type):
            raise InvalidTypeError(
                f"column {name!r} of type {table[name].type} cannot be names of folders"
            )
        for value in pc.unique(table[name]):
            folder, back = _there_and_back(name, value)
            if not _same(value, back):
                raise InvalidArgumentError(
                    f"the value {cut_line(repr(value.as_py()))} of column {name!r} cannot be the "
                    f"name of a folder: it would be read as {cut_line(repr(back.as_py()))}"
                )
            if len(os.fsencode(folder)) > _LONGEST_NAME:
                raise InvalidArgumentError(
                    f"the value {cut_line(repr(value.as_py()))} of column {name!r} cannot be the "
                    f"name of a folder: it has more than {_LONGEST_NAME} bytes there"
                )


def _there_and_back(name: str, value: pa.Scalar) -> tuple[str, pa.Scalar]:
    """Return the name of the folder of a value, and the value that reading makes of that."""
    partitioning = ds.partitioning(pa.schema([(name, value.type)]), flavor="hive")
    field = pc.field(name)
    try:
        folder, _ = partitioning.format(field == value if value.is_valid else field.is_null())
        back = ds.get_partition_keys(partitioning.parse(f"{folder}/file"))[name]
        return folder, pa.scalar(back, value.type)
    except (pa.ArrowException, KeyError) as error:
        raise InvalidTypeError(
            f"column {name!r} of type {value.type} cannot be names of folders ({error}); cast it "
            "to text"
        ) from error


def _same(one: pa.Scalar, other: pa.Scalar) -> bool:
    if pa.types.is_floating(one.type) and one.is_valid and other.is_valid:
        first, second = one.as_py(), other.as_py()
        both_nan = math.isnan(first) and math.isnan(second)
        return both_nan or (first == second and math.copysign(1, first) == math.copysign(1, second))
    return bool(one.equals(other))


# --- reading ----------------------------------------------------------------------------------


def partition_values(
    origins: Sequence[Origin], given: pa.Schema | None
) -> tuple[pa.Schema, list[Any]]:
    """Return columns that names of folders stand for, and for each file the expression of their
    values, or None.

    A column's type is that of ``given``, else that of the manifest of the table that the file
    belongs to, else int64 if all names are whole numbers, else text.

    Raises
    ------
    SourceError
        A file is in no such folder, as others are, or a name cannot be read as the type.
    """
    none = pa.schema([]), [None] * len(origins)
    if not any("=" in os.path.dirname(origin.path) for origin in origins):
        return none
    tables = _tables(origins)
    inside = [
        origin.path[len(tables[at][0]) :] if at in tables else origin.path
        for at, origin in enumerate(origins)
    ]
    names = [part.partition("=")[0] for part in _folders(inside[0])]
    if not names:
        strange = next((i for i, path in enumerate(inside) if _folders(path)), None)
        if strange is None:
            return none
        raise SourceError(
            f"{origins[strange].path} is in a folder {_folders(inside[strange])[0]}, and "
            f"{origins[0].path} is in none; read them apart"
        )
    kept = [types for _, types in tables.values() if types is not None]
    schema = pa.schema([(name, _type_of(name, given, kept, inside)) for name in names])
    return schema, [_parsed(o, path, schema) for o, path in zip(origins, inside, strict=True)]


def _folders(path: str) -> list[str]:
    """Return the names with ``=`` of the folders of a file."""
    return [part for part in path.split("/")[:-1] if "=" in part]


def _type_of(
    name: str, given: pa.Schema | None, kept: Sequence[pa.Schema], paths: Sequence[str]
) -> pa.DataType:
    if given is not None and name in given.names:
        return given.field(name).type
    types = {str(schema.field(name).type): schema.field(name).type for schema in kept
             if name in schema.names}  # fmt: skip
    if len(types) > 1:
        raise SourceError(
            f"the tables have column {name!r} as {' and as '.join(sorted(types))}; read them "
            "apart, or give the schema"
        )
    if types:
        return next(iter(types.values()))
    text = ds.HivePartitioning(pa.schema([(name, pa.string())]))
    texts = [ds.get_partition_keys(text.parse(path)).get(name) for path in paths]
    known = [each for each in texts if each is not None]
    whole = all(re.fullmatch(r"-?(0|[1-9]\d{0,17})", each) for each in known)
    return pa.int64() if known and whole else pa.string()


def _parsed(origin: Origin, path: str, schema: pa.Schema) -> Any:
    partitioning = ds.HivePartitioning(schema)
    try:
        found = partitioning.parse(path)
        keys = ds.get_partition_keys(found)
    except pa.ArrowException as error:
        raise SourceError(
            f"{origin.path}: the names of its folders cannot be read as {_said(schema)}: {error}"
        ) from error
    missing = [name for name in schema.names if name not in keys]
    if missing:
        raise SourceError(
            f"{origin.path} is in no folder {missing[0]}=…, as other files are; read them apart"
        )
    return found


def _said(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} ({field.type})" for field in schema)


# --- manifests --------------------------------------------------------------------------------


def _tables(origins: Sequence[Origin]) -> Mapping[int, tuple[str, pa.Schema | None]]:
    """Return for files, by their numbers, of tables that this package has written the table's
    folder, and the types of its columns if its manifest tells them."""
    groups: dict[tuple[int, str], list[int]] = {}
    for at, origin in enumerate(origins):
        folder = os.path.dirname(origin.path)
        while "=" in os.path.basename(folder):
            folder = os.path.dirname(folder)
        groups.setdefault((id(origin.filesystem), folder), []).append(at)
    found = {}
    for (_, top), members in groups.items():
        folders = list(_between(top, [os.path.dirname(origins[at].path) for at in members]))
        filesystem = origins[members[0]].filesystem
        with reaching(filesystem, top):
            manifests = [f"{folder}/{MANIFEST}" for folder in folders]
            for folder, info in zip(folders, filesystem.get_file_info(manifests), strict=True):
                if info.type == pafs.FileType.File:
                    types = _types_in(filesystem, info.path)
                    found.update(dict.fromkeys(members, (folder, types)))
                    break
    return found


def _between(top: str, folders: Sequence[str]) -> Iterator[str]:
    """Return ``top`` and the folders below it that hold all of ``folders``. (Any of them may be
    the table's own, whose name may have a ``=``.)"""
    yield top
    common = os.path.commonpath(folders)
    for name in common[len(top) :].strip("/").split("/"):
        if name:
            top = f"{top}/{name}"
            yield top


def _types_in(filesystem: Any, path: str) -> pa.Schema | None:
    try:
        with filesystem.open_input_stream(path) as stream:
            return schema_in(json.loads(stream.read()))
    except (ValueError, AttributeError, TypeError, pa.ArrowException) as error:
        raise SourceError(f"{path} is no manifest of this package: {error}") from error
