"""Tables in an object store, read and written by S3's real protocol."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

import agentic_ray as ar
from agentic_ray.errors import SourceError, StorageError, TargetExistsError
from agentic_ray.tables import col
from tests.support.object_store import ObjectStore, object_store
from tests.support.ports import free_ports

pytestmark = pytest.mark.usefixtures("ray_session")

ROWS = pa.table(
    {
        "id": range(1000),
        "shop": [("north", "south")[i % 2] for i in range(1000)],
        "price": [i / 4 for i in range(1000)],
    }
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("store")) as found:
        yield found


@pytest.fixture
def bucket(store: ObjectStore, request: pytest.FixtureRequest) -> str:
    store.shut.unlink(missing_ok=True)  # whatever a test before has left
    name = f"bucket-{abs(hash(request.node.name))}"
    store.filesystem(buckets=True).create_dir(name)
    return name


@pytest.fixture(params=["pyarrow", "s3fs"])
def filesystem(store: ObjectStore, request: pytest.FixtureRequest) -> Any:
    return store.filesystem() if request.param == "pyarrow" else store.fsspec()


def fill(store: ObjectStore, bucket: str) -> None:
    """Put three files of each kind there."""
    there = store.filesystem()
    for number, start in enumerate((0, 400, 800)):
        part = ROWS.slice(start, 400)
        pq.write_table(
            part, f"{bucket}/data/part-{number}.parquet", filesystem=there, row_group_size=100
        )
        with there.open_output_stream(f"{bucket}/csv/part-{number}.csv.gz") as stream:
            pacsv.write_csv(part, stream)
        with there.open_output_stream(f"{bucket}/json/part-{number}.jsonl") as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in part.to_pylist()).encode())


def names(store: ObjectStore, folder: str) -> list[str]:
    selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
    found = store.filesystem().get_file_info(selector)
    return sorted(i.path[len(folder) + 1 :] for i in found if i.type == pafs.FileType.File)


def test_files_of_all_kinds_are_read(store: ObjectStore, bucket: str, filesystem: Any) -> None:
    fill(store, bucket)
    for path in (f"{bucket}/data", f"{bucket}/data/part-*.parquet", f"{bucket}/**/*.parquet"):
        table = ar.tables.read_parquet(path, filesystem=filesystem)
        assert table.to_arrow().equals(ROWS)
    few = table.filter(col("id") >= 950).select("price")
    assert "10 files or row groups are left out" not in few.explain()
    assert "9 files or row groups are left out" in few.explain()
    assert few.to_arrow().equals(ROWS.slice(950).select(["price"]))
    csv = ar.tables.read_csv(f"{bucket}/csv/*.csv.gz", filesystem=filesystem)
    assert csv.to_arrow().equals(ROWS)
    assert ar.tables.read_json(f"{bucket}/json", filesystem=filesystem).to_arrow().equals(ROWS)


def test_urls_say_where_the_store_is(store: ObjectStore, bucket: str) -> None:
    fill(store, bucket)
    table = ar.tables.read_parquet(store.url(f"{bucket}/data/part-*.parquet"))
    assert table.count() == 1000
    ar.tables.from_arrow(ROWS).write_csv(store.url(f"{bucket}/out"), job="one")
    assert ar.tables.read_csv(store.url(f"{bucket}/out")).to_arrow().equals(ROWS)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_table_is_written_in_partitions(
    store: ObjectStore, bucket: str, filesystem: Any, kind: str
) -> None:
    table = ar.tables.from_arrow(ROWS, part_rows=300)
    target = f"{bucket}/out"
    write, read = getattr(table, f"write_{kind}"), getattr(ar.tables, f"read_{kind}")
    written = write(target, partition_by="shop", job="night", filesystem=filesystem)
    assert written.rows == 1000
    assert names(store, target) == sorted(["_manifest.json", *(f.path for f in written.files)])
    assert {file.path.split("/")[0] for file in written.files} == {"shop=north", "shop=south"}
    with store.filesystem().open_input_stream(f"{target}/_manifest.json") as stream:
        assert json.loads(stream.read())["job"] == "night"
    south = read(target, filesystem=filesystem).filter(col("shop") == "south")
    assert south.select("id").to_arrow()["id"].to_pylist() == list(range(1, 1000, 2))
    with pytest.raises(TargetExistsError, match="overwrite"):
        write(target, filesystem=filesystem)
    fewer = table.filter(col("id") < 10)
    again = getattr(fewer, f"write_{kind}")(target, mode="overwrite", filesystem=filesystem)
    assert names(store, target) == sorted(["_manifest.json", *(f.path for f in again.files)])
    assert read(target, filesystem=filesystem).to_arrow().equals(ROWS.slice(0, 10))
    none = getattr(table.filter(col("id") < 0), f"write_{kind}")
    none(target, mode="overwrite", filesystem=filesystem)
    assert read(target, filesystem=filesystem).to_arrow().column_names == ROWS.column_names
    assert read(target, filesystem=filesystem).count() == 0


def test_what_others_wrote_is_not_replaced(store: ObjectStore, bucket: str) -> None:
    fill(store, bucket)
    before = names(store, bucket)
    with pytest.raises(TargetExistsError, match="move it away"):
        ar.tables.from_arrow(ROWS).write_parquet(
            f"{bucket}/data", mode="overwrite", filesystem=store.filesystem()
        )
    assert names(store, bucket) == before


def test_a_missing_bucket_is_named(filesystem: Any) -> None:
    with pytest.raises(FileNotFoundError, match="no bucket absent"):
        ar.tables.read_parquet("absent/data", filesystem=filesystem)
    with pytest.raises(FileNotFoundError, match="no bucket absent"):
        ar.tables.read_parquet("absent/*.parquet", filesystem=filesystem)
    with pytest.raises(FileNotFoundError, match="no bucket absent"):
        ar.tables.from_arrow(ROWS).write_parquet("absent/out", filesystem=filesystem)


def test_wrong_credentials_are_told(tmp_path: Path) -> None:
    with object_store(tmp_path, refuse_all=True) as strict:
        for filesystem in (strict.filesystem(), strict.fsspec()):
            with pytest.raises(StorageError, match=r"bucket/data.*refuses"):
                ar.tables.read_parquet("bucket/data", filesystem=filesystem)
            with pytest.raises(StorageError, match=r"bucket/out.*refuses"):
                ar.tables.from_arrow(ROWS).write_parquet("bucket/out", filesystem=filesystem)
        with pytest.raises(StorageError) as raised:
            ar.tables.read_parquet(strict.url("bucket/*.parquet"))
        assert "secret" not in str(raised.value)


def shutting(armed: Path, shut: Path) -> Any:
    """Return a function that lets the store go away when it is given the last rows, as long as
    there is a file ``armed``: a task that is run again may come late."""

    def function(rows: pa.Table) -> pa.Table:
        if 999 in rows["id"].to_pylist() and armed.exists():
            shut.touch()
        return rows

    return function


def test_a_store_that_goes_away_while_it_is_written_keeps_the_old_table(
    store: ObjectStore, bucket: str
) -> None:
    filesystem = store.filesystem()  # (s3fs tries each request again for half a minute)
    target = f"{bucket}/out"
    table = ar.tables.from_arrow(ROWS, part_rows=300)
    old = table.select("id").write_parquet(target, filesystem=filesystem)
    armed = store.shut.with_name("armed")
    failing = table.map(shutting(armed, store.shut))
    for folder, mode in ((target, "overwrite"), (f"{bucket}/first", "error")):
        armed.touch()
        try:
            with pytest.raises(StorageError, match="cannot be reached"):
                failing.write_parquet(folder, mode=mode, filesystem=filesystem)
        finally:
            armed.unlink()
            store.shut.unlink(missing_ok=True)
    kept = ar.tables.read_parquet(target, filesystem=filesystem)
    assert kept.to_arrow().equals(ROWS.select(["id"]))
    visible = [name for name in names(store, target) if not name.startswith("_")]
    assert visible == sorted(file.path for file in old.files)
    with pytest.raises(FileNotFoundError):  # what was left there is passed over
        ar.tables.read_parquet(f"{bucket}/first", filesystem=filesystem)
    table.write_parquet(f"{bucket}/first", filesystem=filesystem)
    assert ar.tables.read_parquet(f"{bucket}/first", filesystem=filesystem).count() == 1000


def test_a_job_that_fails_leaves_nothing(store: ObjectStore, bucket: str, filesystem: Any) -> None:
    def fails(rows: pa.Table) -> pa.Table:
        if 999 in rows["id"].to_pylist():
            raise RuntimeError("in the last part")
        return rows

    table = ar.tables.from_arrow(ROWS, part_rows=300).map(fails)
    with pytest.raises(RuntimeError, match="in the last part"):
        table.write_parquet(f"{bucket}/out", filesystem=filesystem)
    assert names(store, f"{bucket}/out") == []


def test_a_table_of_which_the_first_job_died_is_not_read(store: ObjectStore, bucket: str) -> None:
    there = store.filesystem()
    target = f"{bucket}/out"
    table = ar.tables.from_arrow(ROWS)
    pq.write_table(ROWS.slice(0, 5), f"{target}/part-dead-0.parquet", filesystem=there)
    with there.open_output_stream(f"{target}/_manifest.json") as stream:
        stream.write(b'{"pending": true, "job": "night"}')
    with pytest.raises(SourceError, match="job night, which is not done, or has died"):
        ar.tables.read_parquet(target, filesystem=there)
    table.write_parquet(target, mode="overwrite", filesystem=there)
    assert ar.tables.read_parquet(target, filesystem=there).to_arrow().equals(ROWS)
    assert len(names(store, target)) == 2


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_store_that_goes_away_is_no_damage_to_skip(
    store: ObjectStore, bucket: str, on_error: Any
) -> None:
    filesystem = store.filesystem()
    fill(store, bucket)
    parquet = ar.tables.read_parquet(f"{bucket}/data", filesystem=filesystem, on_error=on_error)
    json_lines = ar.tables.read_json(f"{bucket}/json", filesystem=filesystem, on_error=on_error)
    store.shut.touch()
    try:
        for table in (parquet, json_lines):
            with pytest.raises(StorageError, match=r"part-0.*cannot be reached"):
                table.to_arrow()
        with pytest.raises(StorageError, match="cannot be reached"):
            ar.tables.read_csv(f"{bucket}/csv", filesystem=filesystem, on_error=on_error)
    finally:
        store.shut.unlink()


def test_a_store_that_is_not_there_is_told_by_fsspec_too() -> None:
    s3fs = pytest.importorskip("s3fs")
    (port,) = free_ports(1)
    nowhere = s3fs.S3FileSystem(
        key="user",
        secret="secret",
        endpoint_url=f"http://127.0.0.1:{port}",
        config_kwargs={"retries": {"max_attempts": 0}},
    )
    with pytest.raises(StorageError, match=r"bucket/data.*cannot be reached"):
        ar.tables.read_parquet("bucket/data", filesystem=nowhere)


def test_a_damaged_file_of_a_store_is_named_or_skipped(
    store: ObjectStore, bucket: str, filesystem: Any
) -> None:
    fill(store, bucket)
    with store.filesystem().open_output_stream(f"{bucket}/data/part-1.parquet") as stream:
        stream.write(b"PAR1 torn")
    with pytest.raises(SourceError, match=r"part-1\.parquet"):
        ar.tables.read_parquet(f"{bucket}/data", filesystem=filesystem).to_arrow()
    table = ar.tables.read_parquet(f"{bucket}/data", filesystem=filesystem, on_error="skip")
    with pytest.warns(ar.errors.SkippedDataWarning):
        assert table.count() == 600
    assert [entry.path for entry in table.report.skipped] == [f"{bucket}/data/part-1.parquet"]
