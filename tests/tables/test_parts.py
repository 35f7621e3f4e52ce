"""Which parts and columns are read: small files together, and what the steps need."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentic_ray as ar
from agentic_ray.errors import SkippedDataWarning
from agentic_ray.tables import col, shuffle
from agentic_ray.tables.pieces import Pack, Piece, packs
from agentic_ray.tables.scans import part_bytes
from agentic_ray.tables.steps import Filter, Join, Map, Select, pushed


def piece(size: int) -> Piece:
    return Piece("a", "", size, None, None)  # type: ignore[arg-type]


def test_pieces_are_packed_in_order_up_to_a_size() -> None:
    sizes = [5, 5, 100_000, 2_000_000, 30, 1_000_000, 70_000]
    found = packs([piece(size) for size in sizes], 1 << 20)
    inside = [entry.pieces if isinstance(entry, Pack) else (entry,) for entry in found]
    assert [[one.bytes for one in some] for some in inside] == [
        [5, 5, 100_000], [2_000_000], [30, 1_000_000], [70_000],
    ]  # fmt: skip
    assert len(packs([piece(1)] * 100, 1 << 20)) == 2  # a file takes a while, however small
    assert packs([], 1) == ()


def test_parts_depend_on_the_size_alone() -> None:
    sizes = [part_bytes(total) for total in (0, 1 << 20, 64 << 20, 65 << 20, 1 << 31, 1 << 40)]
    assert sizes == [1 << 20, 1 << 20, 1 << 20, 2 << 20, 32 << 20, 32 << 20]


SCHEMA = pa.schema([("id", pa.int64()), ("shop", pa.string()), ("price", pa.float64())])
TOWNS = pa.schema([("shop", pa.string()), ("town", pa.string()), ("price", pa.int64())])


def join(how: str = "inner") -> Join:
    return Join(0, ("shop",), how, "_right", TOWNS, "digest")


@pytest.mark.parametrize(
    ("steps", "needed", "columns"),
    [
        ((), ("id",), ("id",)),
        ((), None, None),
        ((join(),), ("town",), ("shop",)),
        ((join(),), ("id", "price_right"), ("id", "shop")),
        ((join("semi"),), ("price",), ("price", "shop")),
        ((join(), Filter(col("town") == "Oslo")), ("id",), ("id", "shop")),
        ((join(), Filter(col("price") > 3)), ("town",), ("price", "shop")),
        ((join(), Select(("town", "id"))), ("town",), ("shop",)),
        ((join(), Select(("town", "id"))), None, ("id", "shop")),
        ((Select(("shop", "id")), join()), ("town",), ("shop",)),
        ((join(), Map(len)), ("town",), None),  # type: ignore[arg-type]
        ((Select(("shop", "id")), Map(len), join()), ("town",), ("shop", "id")),  # type: ignore[arg-type]
    ],
)
def test_only_columns_that_steps_use_are_read(
    steps: tuple[Any, ...], needed: tuple[str, ...] | None, columns: tuple[str, ...] | None
) -> None:
    found, _, left = pushed(SCHEMA, steps, needed)
    assert found == columns
    assert len(left) == len([s for s in steps if s is not steps[0] or not isinstance(s, Select)])


@pytest.mark.usefixtures("ray_session")
def test_small_files_are_read_together_and_skipped_one_by_one(tmp_path: Path) -> None:
    for number in range(6):
        table = pa.table({"file": [number] * 100, "x": np.arange(100.0)})
        pq.write_table(table, tmp_path / f"{number}.parquet", compression="none")
    table = ar.tables.read_parquet(tmp_path, on_error="skip")
    assert table.agg(x=("x", "sum")).to_pylist() == [{"x": 6 * 4950.0}]
    assert table.report.parts == 1
    content = (tmp_path / "3.parquet").read_bytes()
    (tmp_path / "3.parquet").write_bytes(b"PAR1" + b"\xff" * 200 + content[204:])
    with pytest.warns(SkippedDataWarning, match=r"3\.parquet"):
        found = table.group_by("file").size()
    assert found["file"].to_pylist() == [0, 1, 2, 4, 5]
    assert [Path(entry.path).name for entry in table.report.skipped] == ["3.parquet"]
    assert table.report.rows == 500


@pytest.mark.usefixtures("ray_session")
def test_steps_after_a_join_see_its_columns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shops = rng.integers(0, 30, 3000)
    rows = pa.table({"id": np.arange(3000), "shop": shops, "price": rng.integers(0, 9, 3000)})
    pq.write_table(rows, tmp_path / "a.parquet", row_group_size=500)
    towns = pa.table(
        {"shop": np.arange(20), "town": [f"t{n % 3}" for n in range(20)], "price": [7] * 20}
    )
    joined = ar.tables.read_parquet(tmp_path / "a.parquet").join(towns, "shop")
    frame = rows.to_pandas().merge(towns.to_pandas(), on="shop", suffixes=("", "_right"))
    some = joined.filter((col("town") != "t1") & (col("price") < col("price_right")))
    wanted = frame[(frame.town != "t1") & (frame.price < frame.price_right)]
    assert some.count() == len(wanted)
    found = some.group_by("town").agg(ids=("id", "sum"), low=("price_right", "min"))
    assert {row["town"]: row["ids"] for row in found.to_pylist()} == dict(
        wanted.groupby("town")["id"].sum()
    )
    assert some.select("price_right", "id").to_arrow()["id"].to_pylist() == wanted["id"].to_list()


@pytest.mark.usefixtures("ray_session")
def test_a_worker_that_is_killed_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    rows = pa.table({"k": rng.integers(0, 500, 4000), "x": rng.normal(size=4000) * 1e9})
    once = tmp_path / "once"

    def dies_once(part: pa.Table) -> pa.Table:
        if part["x"][0].as_py() == last:
            try:
                os.close(os.open(once, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return part
            os.kill(os.getpid(), signal.SIGKILL)
        return part

    last = rows["x"][3000].as_py()
    table = ar.tables.from_arrow(rows, part_rows=1000)
    wanted = table.group_by("k").agg(total=("x", "sum"), spread=("x", "std"))
    monkeypatch.setattr(shuffle, "HERE_BYTES", 0)
    found = table.map(dies_once).group_by("k").agg(total=("x", "sum"), spread=("x", "std"))
    assert once.exists()
    assert found.equals(wanted)
    in_order = table.map(dies_once).sort_by(["k", "x"]).to_arrow()
    assert in_order.equals(rows.sort_by([("k", "ascending"), ("x", "ascending")]))
