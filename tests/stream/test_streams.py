"""Streams from their sources to their sinks: the same windows from each, killed or not."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import agentic_ray as ar
from agentic_ray.errors import (
    CheckpointError,
    InvalidArgumentError,
    InvalidTypeError,
    SkippedDataWarning,
    SourceError,
)
from agentic_ray.stream import front
from agentic_ray.stream.sinks import FolderSink
from agentic_ray.tables import col
from tests.support.waiting import until

DEADLINE = 60


def events(count: int = 2000, seed: int = 0) -> list[dict[str, Any]]:
    """Payments, a little out of order, with amounts whose sums depend on the order of additions."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.random(count) * 50) + rng.random(count) * 0.4
    return [
        {"time": float(t), "card": f"c{k}", "amount": float(a) / 3}
        for t, k, a in zip(
            times, rng.integers(0, 5, count), rng.normal(size=count) * 1e6, strict=True
        )
    ]


def described(source: Any, **options: Any) -> ar.stream.Stream:
    return (
        ar.stream(source, max_delay=0.3, **options)
        .filter(col("amount") > -1e6)
        .key_by("card")
        .window(ar.stream.sliding(2, 1))
        .aggregate({"amount": ["sum", "var"]}, n="size")
    )


def in_order(table: pa.Table) -> list[dict[str, Any]]:
    order = [(name, "ascending") for name in ("window_end", "window_start", "card")]
    return table.sort_by(order).to_pylist()


@pytest.fixture(scope="module")
def wanted() -> list[dict[str, Any]]:
    return in_order(described(events()).to_arrow())


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_one_by_one_in_batches_or_from_files(tmp_path: Path, wanted: list[Any]) -> None:
    rows = events()
    assert len(wanted) > 100
    assert in_order(described(iter(rows)).to_arrow()) == wanted
    batches = pa.Table.from_pylist(rows).to_batches(max_chunksize=37)
    assert in_order(described(batches).to_arrow()) == wanted
    assert in_order(described(lambda: iter(batches)).to_arrow()) == wanted
    assert in_order(described(pa.Table.from_pylist(rows)).to_arrow()) == wanted
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(rows)[:-1])  # the last line without its end
    assert in_order(described(file).to_arrow()) == wanted
    csv = tmp_path / "events.csv"
    pa.csv.write_csv(pa.Table.from_pylist(rows), csv)
    assert in_order(described(csv).to_arrow()) == wanted
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(4):
        part = rows[500 * i : 500 * (i + 1)]
        if i % 2:
            pq.write_table(pa.Table.from_pylist(part), folder / f"{i}.parquet")
        else:
            (folder / f"{i}.jsonl").write_bytes(lines(part))
    (folder / "_writing").write_bytes(b"half a")
    assert in_order(described(folder).to_arrow()) == wanted


@pytest.mark.usefixtures("ray_session")
def test_a_table_gives_the_same_windows_and_maps_run_in_workers(
    tmp_path: Path, wanted: list[Any]
) -> None:
    pq.write_table(pa.Table.from_pylist(events()), tmp_path / "e.parquet", row_group_size=300)
    table = ar.tables.read_parquet(tmp_path)
    assert in_order(described(table).to_arrow()) == wanted

    def doubled(part: pa.Table) -> pa.Table:
        assert "RAY_JOB_ID" in os.environ or os.getppid() != 1
        return part.append_column("double", pa.compute.multiply(part["amount"], 2.0))

    found = (
        ar.stream(iter(events(300)))
        .map(doubled)
        .window(ar.stream.tumbling(1000))
        .aggregate(a=("amount", "sum"), b=("double", "sum"), pid=("time", "size"))
    )
    (row,) = found.to_arrow().to_pylist()
    np.testing.assert_allclose(row["b"], 2 * row["a"])


def test_a_file_is_followed_while_it_grows(tmp_path: Path, wanted: list[Any]) -> None:
    file = tmp_path / "events.jsonl"
    file.touch()
    content = lines(events())
    found: list[pa.Table] = []
    halt = threading.Event()
    reports: list[Any] = []
    stream = described(ar.stream.file(file, follow=True)).sink(lambda w, epoch: found.append(w))
    runner = threading.Thread(target=lambda: reports.append(stream.run(stop=halt)))
    runner.start()
    with open(file, "ab", buffering=0) as out:
        for start in range(0, len(content), 5001):  # which ends within lines
            out.write(content[start : start + 5001])
    last = max(row["time"] for row in events()) - 0.3
    ready = [row for row in wanted if row["window_end"] <= last]
    until(lambda: sum(table.num_rows for table in list(found)) >= len(ready))
    halt.set()
    runner.join(DEADLINE)
    assert in_order(pa.concat_tables(found)) == ready
    assert not reports[0].ended
    assert reports[0].rows == sum(row["amount"] > -1e6 for row in events())


def test_a_folder_is_followed(tmp_path: Path, wanted: list[Any]) -> None:
    rows = events()
    found: list[pa.Table] = []
    halt = threading.Event()
    stream = described(ar.stream.folder(tmp_path, follow=True)).sink(lambda w, e: found.append(w))
    runner = threading.Thread(target=lambda: stream.run(stop=halt))
    runner.start()
    for i in range(4):
        (tmp_path / f".{i}").write_bytes(lines(rows[500 * i : 500 * (i + 1)]))
        os.rename(tmp_path / f".{i}", tmp_path / f"{i}.jsonl")
    last = max(row["time"] for row in rows) - 0.3
    ready = [row for row in wanted if row["window_end"] <= last]
    until(lambda: sum(table.num_rows for table in list(found)) >= len(ready))
    halt.set()
    runner.join(DEADLINE)
    assert in_order(pa.concat_tables(found)) == ready


def test_a_socket(wanted: list[Any], tmp_path: Path) -> None:
    with sockets.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(lines(events())[:-1])

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        source = ar.stream.socket("127.0.0.1", port)
        with pytest.raises(InvalidArgumentError, match="socket"):
            described(source).sink(print).run(checkpoint=tmp_path)
        assert in_order(described(source).to_arrow()) == wanted
        thread.join(DEADLINE)


def test_a_sink_that_fails_is_given_the_same_again(tmp_path: Path, wanted: list[Any]) -> None:
    seen: dict[int, pa.Table] = {}
    left = 7

    def sink(windows: pa.Table, epoch: int) -> None:
        nonlocal left
        left -= 1
        assert epoch not in seen or seen[epoch].equals(windows)
        seen[epoch] = windows
        if left % 3 == 0 and left > 0:
            raise ConnectionError("the database is away")

    batches = pa.Table.from_pylist(events()).to_batches(max_chunksize=100)

    def slowly() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch
            time.sleep(0.01)  # so that there are several epochs; how many does not matter

    for _ in range(10):
        try:
            described(slowly).sink(sink).run(checkpoint=tmp_path)
        except ConnectionError:
            continue
        break
    assert in_order(pa.concat_tables([seen[epoch] for epoch in sorted(seen)])) == wanted


def run_and_die(folder: str, point: str, left: str) -> None:
    """Run the stream of the test below in this process; SIGKILL it before or after a ``put``."""
    rows = json.loads((Path(folder) / "rows.json").read_text())
    batches = pa.Table.from_pylist(rows).to_batches(max_chunksize=100)
    put, puts = FolderSink.put, 0

    def dying(self: FolderSink, windows: pa.Table, epoch: int) -> None:
        nonlocal puts
        puts += 1
        if puts == int(left) and point == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        put(self, windows, epoch)
        if puts == int(left) and point == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def slowly() -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield batch
            time.sleep(0.02)  # so that there are several epochs; how many does not matter

    FolderSink.put = dying  # type: ignore[method-assign]
    described(slowly).sink(Path(folder) / "windows").run(checkpoint=Path(folder) / "state")


def test_killed_at_any_time_each_window_comes_out_once(tmp_path: Path, wanted: list[Any]) -> None:
    (tmp_path / "rows.json").write_text(json.dumps(events()))
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['run_and_die'](*sys.argv[2:])"
    codes = []
    for point, left in [("before", 1), ("after", 1), ("before", 2), ("after", 2), ("never", 0)]:
        done = subprocess.run(
            [sys.executable, "-c", program, __file__, str(tmp_path), point, str(left)],
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        codes.append(done.returncode)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
    assert codes[0] == -signal.SIGKILL
    assert codes[-1] == 0
    files = sorted((tmp_path / "windows").glob("windows-*.parquet"))
    assert in_order(pa.concat_tables([pq.read_table(file) for file in files])) == wanted


def test_a_run_that_is_stopped_keeps_open_windows(tmp_path: Path, wanted: list[Any]) -> None:
    rows = events()
    found: list[pa.Table] = []
    (tmp_path / "e.jsonl").write_bytes(lines(rows[:1000]))
    followed = described(ar.stream.file(tmp_path / "e.jsonl", follow=True))
    followed = followed.sink(lambda windows, epoch: found.append(windows))
    halt = threading.Event()
    reports: list[Any] = []
    runner = threading.Thread(
        target=lambda: reports.append(followed.run(stop=halt, checkpoint=tmp_path / "state"))
    )
    runner.start()
    until(lambda: bool(found))
    halt.set()
    runner.join(DEADLINE)
    assert not reports[0].ended
    with open(tmp_path / "e.jsonl", "ab") as out:
        out.write(lines(rows[1000:]))
    # (The same file, now to its end: whether it is followed is no part of what is computed.)
    ending = described(ar.stream.file(tmp_path / "e.jsonl"))
    taken = {0: pa.concat_tables(found)}
    epochs = reports[0].epochs
    report = ending.sink(lambda w, epoch: taken.update({epoch: w})).run(
        checkpoint=tmp_path / "state"
    )
    taken.pop(epochs, None)  # given once more
    assert report.ended
    assert in_order(pa.concat_tables(list(taken.values()))) == wanted


def test_the_source_waits_for_slow_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "_BATCH_ROWS", 100)
    given = 0
    ahead: list[int] = []

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal given
        for i in range(3000):
            given += 1
            yield {"time": float(i), "x": 1}

    def sink(windows: pa.Table, epoch: int) -> None:
        time.sleep(0.01)
        ahead.append(given - int(windows["window_end"][-1].as_py()))

    report = (
        ar.stream(rows).window(ar.stream.tumbling(1)).aggregate(n=("x", "sum")).sink(sink).run()
    )
    assert report.windows == 3000
    assert max(ahead) <= 300


def test_lines_that_cannot_be_read_are_named_or_counted(tmp_path: Path) -> None:
    file = tmp_path / "e.jsonl"
    rows = lines(events(100)).splitlines(keepends=True)
    file.write_bytes(b"".join(rows[:50]) + b'{"time": oops\n' + b"".join(rows[50:]))
    with pytest.raises(SourceError, match=r"e\.jsonl.*line 51"):
        described(file).to_arrow()
    found: list[pa.Table] = []
    stream = described(ar.stream.file(file, on_error="skip"))
    with pytest.warns(SkippedDataWarning, match=r"1 lines or files .*e\.jsonl byte"):
        report = stream.sink(lambda w, e: found.append(w)).run()
    assert report.skipped == 1
    (left_out,) = report.first_skipped
    assert left_out.path == str(file)
    assert left_out.where == f"byte {sum(map(len, rows[:50]))}"
    assert "JSON" in left_out.error
    assert in_order(pa.concat_tables(found)) == in_order(described(events(100)).to_arrow())


def test_lists_of_lines_left_out_are_bounded_and_files_are_on_them(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"oops\n" * 1500 + b'{"time": 0.0, "x": 1}\n')
    (tmp_path / "b.parquet").write_bytes(b"oops")
    (tmp_path / "c.jsonl").write_bytes(b'{"time": 0.5, "x": 2}\n')
    source = ar.stream.folder(tmp_path, on_error="skip")
    stream = ar.stream(source).window(ar.stream.tumbling(1)).aggregate(n=("x", "sum"))
    found: list[pa.Table] = []
    with pytest.warns(SkippedDataWarning, match="1501 lines or files"):
        report = stream.sink(lambda w, e: found.append(w)).run()
    assert (report.skipped, len(report.first_skipped)) == (1501, 1000)
    assert [one.where for one in report.first_skipped[:3]] == ["byte 0", "byte 5", "byte 10"]
    assert pa.concat_tables(found)["n"].to_pylist() == [3]
    (tmp_path / "a.jsonl").unlink()
    with pytest.warns(SkippedDataWarning, match=r"b\.parquet"):  # also where there are no windows
        whole = ar.stream(source).group_by("time").agg(n=("x", "sum"))
    assert whole["n"].to_pylist() == [2]


def test_types_that_change_are_an_error() -> None:
    rows = [{"time": 0.0, "card": "a", "amount": 1.0}, {"time": 1.0, "card": 7, "amount": 1.0}]
    with pytest.raises(SourceError, match="does not fit"):
        described(rows).to_arrow()
    later = [pa.table({"time": [0.0], "card": ["a"], "amount": [1.0]})]
    later.append(pa.table({"time": [0.0], "card": [7], "amount": [1.0]}))
    with pytest.raises(SourceError, match="schema"):
        described(later).to_arrow()


def test_checkpoints_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    rows = events(200)
    described(rows).sink(tmp_path / "out").run(checkpoint=tmp_path / "state")
    other = described(rows).window(ar.stream.tumbling(1)).sink(tmp_path / "other")
    with pytest.raises(CheckpointError, match="other steps"):
        other.run(checkpoint=tmp_path / "state")
    with pytest.raises(InvalidArgumentError, match="has not written"):
        described(rows).sink(tmp_path / "out").run(checkpoint=tmp_path / "fresh")
    with pytest.raises(SourceError, match="only 10 now"):
        described(rows[:10]).sink(tmp_path / "out").run(checkpoint=tmp_path / "state")
    file = tmp_path / "state" / "checkpoint"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged"):
        described(rows).sink(tmp_path / "out").run(checkpoint=tmp_path / "state")
    entered, leave = threading.Event(), threading.Event()

    def held(windows: pa.Table, epoch: int) -> None:
        entered.set()
        leave.wait(DEADLINE)

    first = described(rows).sink(held)
    runner = threading.Thread(target=lambda: first.run(checkpoint=tmp_path / "busy"))
    runner.start()
    assert entered.wait(DEADLINE)
    try:
        with pytest.raises(CheckpointError, match="another stream"):
            described(rows).sink(print).run(checkpoint=tmp_path / "busy")
    finally:
        leave.set()
        runner.join(DEADLINE)


def test_chains_are_checked(tmp_path: Path) -> None:
    rows = events(10)
    with pytest.raises(InvalidArgumentError, match="no window"):
        ar.stream(rows).aggregate(n="size").to_arrow()
    with pytest.raises(InvalidArgumentError, match="no aggregate"):
        ar.stream(rows).window(ar.stream.tumbling(1)).to_arrow()
    with pytest.raises(InvalidArgumentError, match="no sink"):
        described(rows).run()
    with pytest.raises(InvalidTypeError, match=r"file\(path\)"):
        ar.stream("events.jsonl")
    with pytest.raises(InvalidTypeError, match="no source"):
        ar.stream(3)
    with pytest.raises(FileNotFoundError):
        ar.stream.file(tmp_path / "nothing")
    with pytest.raises(InvalidTypeError, match="dict"):
        described([1, 2]).to_arrow()
    with pytest.raises(InvalidTypeError, match="window"):
        ar.stream(rows).window(3)  # type: ignore[arg-type]
    assert described([]).to_arrow().num_rows == 0
    text = textwrap.shorten(described(rows).explain(), 200)
    assert "key by card" in text
