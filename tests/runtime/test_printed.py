"""What tasks print arrives in the call that ran them: every line, once, before it returns."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.errors import PoisonTaskError
from agentic_ray.runtime.printed import MOST_CHARACTERS, Piece, Taken, write_out

with_ray = pytest.mark.usefixtures("ray_session")


@with_ray
def test_each_line_of_a_worker_process_arrives_once(capsys: Any) -> None:
    def work(x: int) -> None:
        print("out", x)
        print("err", x, file=sys.stderr)
        sys.stdout.buffer.write(b"bytes %d\n" % x)
        thread = threading.Thread(target=print, args=("thread", x))
        thread.start()
        thread.join()
        os.write(1, b"descriptor %d\n" % x)
        subprocess.run(["sh", "-c", f"echo child {x}; echo child {x} >&2"], check=True)

    ar.map_reduce(work, range(6))
    said = capsys.readouterr()
    names = ["out", "bytes", "thread", "descriptor", "child"]
    assert sorted(said.out.splitlines()) == sorted(f"{n} {x}" for n in names for x in range(6))
    assert sorted(said.err.splitlines()) == sorted(
        f"{n} {x}" for n in ("err", "child") for x in range(6)
    )


@with_ray
def test_equal_lines_all_arrive(capsys: Any) -> None:
    ar.map_reduce(lambda x: print("the same line"), range(200))
    assert capsys.readouterr().out == "the same line\n" * 200


@with_ray
def test_what_executor_threads_print_arrives(capsys: Any) -> None:
    @ar.codelet
    def codelet(block: Any) -> float:
        print("codelet", len(block))
        return float(block.sum())

    ar.map_reduce(codelet, np.ones(40), lambda a, b: a + b, chunk_size=10)
    assert capsys.readouterr().out == "codelet 10\n" * 4

    def block(part: Any) -> Any:
        print("block", part.shape)
        return part

    x = xp.asarray(np.zeros((4, 4)), chunks=(2, 4))
    np.asarray(xp.map_blocks(block, x, dtype=float))
    assert capsys.readouterr().out == "block (2, 4)\n" * 2
    ar.persist(xp.map_blocks(block, x, dtype=float))
    assert capsys.readouterr().out == "block (2, 4)\n" * 2


@with_ray
def test_what_was_printed_before_an_exception_arrives(capsys: Any) -> None:
    def fail(x: int) -> None:
        print("before", x)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ar.map_reduce(fail, [7])
    assert capsys.readouterr().out == "before 7\n"


@with_ray
@pytest.mark.slow
def test_what_was_printed_before_the_process_died_arrives(capsys: Any) -> None:
    def die(x: int) -> None:
        print("about to die", x)
        os.kill(os.getpid(), 9)

    with pytest.raises(PoisonTaskError):
        ar.map_reduce(die, [7])
    assert "about to die 7\n" in capsys.readouterr().out


@with_ray
def test_a_flood_is_cut_with_a_note(capsys: Any) -> None:
    ar.map_reduce(lambda x: print("x" * 1_000_000), [1])
    said = capsys.readouterr().out
    assert said.startswith("x" * MOST_CHARACTERS + "\n[")
    assert f"{1_000_001 - MOST_CHARACTERS:,} more characters to stdout" in said


def test_pieces_keep_their_order() -> None:
    taken = Taken()
    for stream, text in (("stdout", "a"), ("stdout", "\n"), ("stderr", "b"), ("stdout", "c")):
        taken.add(stream, text)  # type: ignore[arg-type]
    assert taken.pieces() == (Piece("stdout", "a\n"), Piece("stderr", "b"), Piece("stdout", "c"))


def test_what_the_terminal_cannot_show_is_written_as_escapes(monkeypatch: Any) -> None:
    import io

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    write_out([Piece("stdout", "é\n")])
    assert raw.getvalue() == b"\\xe9\n"
    monkeypatch.setattr(sys, "stdout", None)
    write_out([Piece("stdout", "nobody sees this")])
