"""What a master keeps is its user's alone: others can read, plant and take over nothing."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.errors import JournalError, ResultCorruptError
from agentic_ray.master import Journal, Master, Registry
from agentic_ray.master.results import DirectoryResults, MemoryResults, SignedResults
from agentic_ray.master.upkeep import backup

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


def echo(params: Any) -> Any:
    print("said", params["secret"])
    return params


@pytest.fixture
def registry() -> Registry:
    made = Registry()
    made.register("echo", echo)
    return made


def used_journal(file: Path, registry: Registry) -> None:
    """A journal with a result in the database, one beside it, a cache and a stage."""
    journal = Journal(file, inline_bytes=100)
    with Master(workloads=registry, store=journal) as master:
        for size in (1, 1000):
            master.submit("echo", {"secret": "s3cret" * size}).result(60)
        stages = journal.stage_results()
        assert stages is not None
        stages.put("job_stage", b"s3cret")


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("mask", [0o000, 0o022])
def test_all_that_is_kept_is_for_its_user_only(
    tmp_path: Path, registry: Registry, mask: int
) -> None:
    before = os.umask(mask)
    try:
        used_journal(tmp_path / "j", registry)
        backup(tmp_path / "j", tmp_path / "copy")
    finally:
        os.umask(before)
    found = modes(tmp_path)
    assert {"j", "j.results", "j.cache", "j.stages", "copy", "copy/journal.sqlite3"} <= set(found)
    assert {mode for name, mode in found.items() if (tmp_path / name).is_dir()} == {0o700}
    assert {mode for name, mode in found.items() if (tmp_path / name).is_file()} == {0o600}


def test_what_was_open_to_others_is_closed(tmp_path: Path, registry: Registry) -> None:
    used_journal(tmp_path / "j", registry)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    used_journal(tmp_path / "j", registry)
    found = modes(tmp_path)
    assert [found[name] for name in ("j", "j.results", "j.cache", "j.stages")] == [
        0o600,
        *[0o700] * 3,
    ]


def test_only_what_was_signed_with_the_key_is_read() -> None:
    blobs = MemoryResults()
    ours = SignedResults(blobs, b"key")
    reference = ours.put("name", b"content")
    assert ours.get(reference) == b"content"
    with pytest.raises(ResultCorruptError, match="not written with this journal"):
        SignedResults(blobs, b"other").get(reference)
    for forged in (b"content", b"", b"\0" * 32 + b"content"):
        with pytest.raises(ResultCorruptError, match="not written with this journal"):
            ours.get(blobs.put("name", forged))
    # The content of another name, with its right signature.
    moved = blobs.put("other", blobs.get(reference))
    with pytest.raises(ResultCorruptError, match="not written with this journal"):
        ours.get(moved)


def test_planted_cache_entries_and_stages_are_passed_over(
    tmp_path: Path, registry: Registry
) -> None:
    used_journal(tmp_path / "j", registry)
    forger = DirectoryResults(tmp_path / "j.cache")
    (large,) = (path for path in (tmp_path / "j.cache").iterdir() if path.stat().st_size > 1000)
    name = large.name.rpartition(".")[0]
    large.unlink()
    forger.put(name, b'"forged"')
    with Master(workloads=registry, journal=tmp_path / "j") as master:
        job = master.submit("echo", {"secret": "s3cret" * 1000})
        assert job.result(60) == {"secret": "s3cret" * 1000}
        assert not job.record.cached


def test_links_are_not_followed(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "j.cache").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JournalError, match="is not a folder"):
        Master(workloads=registry, journal=tmp_path / "j")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_where_all_may_replace_files_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "open"
    place.mkdir()
    place.chmod(0o777)
    Journal(place / "j").close()
    assert "may delete and replace files" in caplog.text
    caplog.clear()
    place.chmod(0o1777)
    Journal(place / "j").close()
    assert not caplog.text


NOBODY = """
import os, pathlib, sys
os.setgroups([]); os.setgid({gid}); os.setuid({uid})
place = pathlib.Path(sys.argv[1])
done = []
def attempt(what, act):
    try:
        act()
    except OSError:
        return
    done.append(what)
for path in [place / name for name in sys.argv[2:]]:
    attempt(f"read {{path}}", lambda: path.read_bytes() if path.is_file() else os.listdir(path))
    attempt(f"write {{path}}", lambda: path.open("ab"))
    attempt(f"plant {{path}}", lambda: (path / "planted").write_text("x"))
    attempt(f"move {{path}}", lambda: path.rename(place / "mine"))
    attempt(f"open {{path}}", lambda: path.chmod(0o777))
print(done)
"""


@as_root
def test_nobody_can_read_plant_or_take_over_anything(tmp_path: Path, registry: Registry) -> None:
    nobody = pwd.getpwnam("nobody")
    shared = Path(f"/tmp/agentic-ray-test-{os.getpid()}")
    shared.mkdir(mode=0o1777)
    shared.chmod(0o1777)  # as /tmp itself: all may make files there
    try:
        used_journal(shared / "j", registry)
        kept = sorted(modes(shared))
        script = NOBODY.format(uid=nobody.pw_uid, gid=nobody.pw_gid)
        told = subprocess.run(
            ["/usr/bin/env", "python3", "-c", script, str(shared), *kept],
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.strip() == "[]"
        for path in (shared / name for name in kept):
            if path.is_file():
                assert path.stat().st_uid == os.geteuid()
    finally:
        subprocess.run(["rm", "-rf", str(shared)], check=True)


def planted_folder(path: Path, uid: int) -> None:
    path.mkdir()
    os.chown(path, uid, uid)


def planted_file(path: Path, uid: int) -> None:
    path.touch()
    os.chown(path, uid, uid)


@as_root
@pytest.mark.parametrize(
    ("name", "plant"),
    [
        ("j", planted_file),
        ("j-wal", planted_file),
        ("j.cache", planted_folder),
        ("j.stages", planted_folder),
    ],
)
def test_what_another_user_made_first_is_refused(
    tmp_path: Path, registry: Registry, name: str, plant: Callable[[Path, int], None]
) -> None:
    plant(tmp_path / name, pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(JournalError, match="belongs to user"):
        Master(workloads=registry, journal=tmp_path / "j")


@as_root
def test_results_are_not_put_where_another_user_owns_the_folder(
    tmp_path: Path, registry: Registry
) -> None:
    planted_folder(tmp_path / "j.results", pwd.getpwnam("nobody").pw_uid)
    with pytest.raises(JournalError, match="belongs to user"):
        DirectoryResults(tmp_path / "j.results").put("name", b"content")
