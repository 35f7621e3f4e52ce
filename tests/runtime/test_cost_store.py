"""The store of learnt costs: real files, damaged ones, and several processes at once."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from agentic_ray.runtime import cost_store
from agentic_ray.runtime.cost_store import CostStore
from agentic_ray.schedule import CostModel

Log = pytest.LogCaptureFixture


def taught(codelet: str = "c", seconds: float = 2.0) -> CostModel:
    model = CostModel()
    for size in (100, 110, 5000):
        model.observe_size(codelet, "cpu", size, seconds * size)
    return model


def filled(path: Path) -> CostStore:
    store = CostStore(path)
    assert store.save(taught())
    return store


def seconds(model: CostModel, size: float, codelet: str = "c") -> float:
    found = model.predict_size(codelet, "cpu", size)
    assert found is not None
    return found.seconds


def test_what_was_learnt_is_there_in_the_next_session(tmp_path: Path) -> None:
    store = filled(tmp_path / "deep" / "down" / "costs.sqlite")
    model = CostModel()
    assert store.load(model) == 2  # classes of sizes
    assert seconds(model, 105) == pytest.approx(210)
    assert seconds(model, 50_000) == pytest.approx(100_000, rel=0.01)


def test_without_a_file_nothing_is_known_and_none_is_made(tmp_path: Path) -> None:
    store = CostStore(tmp_path / "costs.sqlite")
    assert store.load(CostModel()) == 0
    assert not store.path.exists()


def test_what_this_session_saw_itself_counts_more(tmp_path: Path) -> None:
    store = filled(tmp_path / "costs.sqlite")
    model = CostModel()
    model.observe_size("c", "cpu", 100, 7.0)
    store.load(model)
    assert seconds(model, 100) == pytest.approx(7.0)
    assert seconds(model, 5000) == pytest.approx(10_000)


def test_sessions_add_to_each_others_knowledge(tmp_path: Path) -> None:
    store = filled(tmp_path / "costs.sqlite")
    assert store.save(taught("other", 3.0))
    model = CostModel()
    store.load(model)
    assert seconds(model, 100) == pytest.approx(200)
    assert seconds(model, 100, "other") == pytest.approx(300)


def test_the_default_place_is_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert CostStore().path == Path("/somewhere/agentic_ray/costs.sqlite")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert CostStore().path == Path("/home/me/.cache/agentic_ray/costs.sqlite")


def text(path: Path) -> None:
    path.write_text("this is no database, and it is long enough to be looked at " * 20)


def half(path: Path) -> None:
    filled(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + b"\xff" * 100)


def flipped(path: Path) -> None:
    half(path)
    content = bytearray(b"SQLite format 3\0" + os.urandom(4000))
    path.write_bytes(bytes(content))


def older(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 0")
    connection.close()


def newer(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    connection.close()


def nonsense(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE knowledge SET seconds = '[\"soon\"]'")
    connection.close()


def other_columns(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE knowledge")
        connection.execute("CREATE TABLE knowledge (codelet, kind, size_class, sizes, seconds)")
        connection.execute("INSERT INTO knowledge VALUES ('c', 'cpu', 1, '[1]', '{')")
    connection.close()


@pytest.mark.parametrize(
    "damage", [text, half, flipped, older, newer, foreign, nonsense, other_columns]
)
def test_a_store_that_cannot_be_used_is_set_aside_and_begun_anew(
    tmp_path: Path, caplog: Log, damage: object
) -> None:
    path = tmp_path / "costs.sqlite"
    damage(path)  # type: ignore[operator]
    before = path.read_bytes()
    store = CostStore(path)
    model = CostModel()
    with caplog.at_level(logging.WARNING):
        assert store.load(model) == 0
    assert "is no store of costs" in caplog.text
    aside = list(tmp_path.glob("*.bad"))
    assert [one.read_bytes() for one in aside] == [before]
    assert model.predict_size("c", "cpu", 100) is None
    assert store.save(taught())
    assert store.load(CostModel()) == 2


def test_saving_over_a_damaged_store_sets_it_aside_too(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "costs.sqlite"
    text(path)
    store = CostStore(path)
    assert not store.save(taught())
    assert "is no store of costs" in caplog.text
    assert store.save(taught())


def test_an_empty_file_is_an_empty_store(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    path.touch()
    store = CostStore(path)
    assert store.load(CostModel()) == 0
    assert store.save(taught())
    assert store.load(CostModel()) == 2


def test_a_place_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: Log) -> None:
    (tmp_path / "file").write_text("")
    store = CostStore(tmp_path / "file" / "costs.sqlite")
    assert not store.save(taught())
    assert "cannot be written" in caplog.text


def test_a_directory_in_its_place_is_a_warning(tmp_path: Path, caplog: Log) -> None:
    path = tmp_path / "costs.sqlite"
    path.mkdir()
    store = CostStore(path)
    assert store.load(CostModel()) == 0
    assert not store.save(taught())
    assert "cannot be" in caplog.text
    assert path.is_dir()


WRITER = """
import sys
from pathlib import Path
from agentic_ray.runtime import cost_store
from agentic_ray.runtime.cost_store import CostStore
from agentic_ray.schedule import CostModel
model = CostModel()
store = CostStore(Path(sys.argv[1]))
for i in range(20):
    model.observe_size(f"codelet-{sys.argv[2]}-{i}", "cpu", 10, 1.0)
    assert store.save(model), i
    store.load(CostModel())
"""


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "costs.sqlite"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(i)]) for i in range(4)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0] * 4
    model = CostModel()
    assert CostStore(path).load(model) == 80
    assert not list(tmp_path.glob("*.bad"))


def test_what_was_written_longest_ago_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_store, "MOST_ROWS", 5)
    path = tmp_path / "costs.sqlite"
    for number in range(20):
        assert CostStore(path).save(taught(f"c{number}"))
    model = CostModel()
    assert CostStore(path).load(model) <= 6  # both classes of the last three
    assert model.predict_size("c19", "cpu", 100) is not None
    assert model.predict_size("c0", "cpu", 100) is None


def test_memory_of_functions_is_kept(tmp_path: Path) -> None:
    first, second = CostModel(), CostModel()
    first.device_peaks.observe("mine.f", 8, 3 * 10**9)
    first.device_peaks.observe("__main__.f", 8, 10**9)
    path = tmp_path / "costs.sqlite"
    assert CostStore(path).save(first)
    with closing(sqlite3.connect(path)) as connection:  # a store from before there was the table
        old = sqlite3.connect(tmp_path / "old.sqlite")
        connection.backup(old)
        old.execute("DROP TABLE device_peaks")
        old.commit()
        old.close()
    CostStore(path).load(second)
    assert [(p.function, p.items, p.size_bytes) for p in second.device_peaks.knowledge()] == [
        ("mine.f", 8, 3 * 10**9)
    ]
    older = CostModel()
    CostStore(tmp_path / "old.sqlite").load(older)
    assert older.device_peaks.knowledge() == []
    assert CostStore(tmp_path / "old.sqlite").save(first)
