"""`ml.train` on real Ray Train: two workers on CPUs, their deaths, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from by_hand import X, Y, curve_by_hand, loop

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.ml.training import front
from tests.support.waiting import until

with_torch = pytest.mark.skipif(
    front.find_spec("torch") is None, reason="training needs the extra torch"
)


def wrong(worker: Any) -> None:
    worker.mean(1.0)
    if worker.rank == 1:
        raise KeyError("of the loop")
    worker.mean(1.0)  # the other one waits here for ever


@pytest.mark.slow
@pytest.mark.timeout(900)  # it starts a dozen processes that import PyTorch
@with_torch
def test_a_worker_that_is_killed_changes_no_loss(ray_session: ar.Session, tmp_path: Path) -> None:
    death = tmp_path / "death"
    trained = ar.ml.train(
        loop,
        (xp.asarray(X, chunks=(50, 4)).rechunk((240, 4)) * 1, Y),
        workers=2,
        checkpoint=f"file://{tmp_path}/kept",
        config={"epochs": 3, "death": str(death)},
    )
    assert death.exists(), "a worker killed itself"
    assert trained.restarts >= 1
    assert trained.workers == 2
    # what two processes of plain PyTorch make of it, which nobody kills
    assert trained.curve == curve_by_hand({"epochs": 3}, tmp_path)
    assert len(trained.curve) == 18
    assert trained.metrics["loss"] < trained.curve[0]["loss"]
    assert trained.states.keys() == {"model", "optimiser"}
    assert trained.checkpoint is not None
    assert Path(trained.checkpoint, "states.pt").is_file()
    assert lease_books(ray_session) == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("AGENTIC_RAY_LONG"), reason="set AGENTIC_RAY_LONG=1")
@with_torch
def test_a_later_call_goes_on_with_another_number_of_workers(
    ray_session: ar.Session, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    first = ar.ml.train(loop, (X, Y), workers=2, checkpoint=kept, config={"epochs": 1})
    more = ar.ml.train(loop, (X, Y), workers=1, checkpoint=kept, config={"epochs": 2})
    assert more.workers == 1
    assert more.curve[:6] == first.curve
    assert [(point["epoch"], point["step"]) for point in more.curve] == [
        (epoch, step) for epoch in range(2) for step in range(6)
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)  # it starts a dozen processes that import PyTorch
@with_torch
def test_an_error_of_the_loop_ends_all_workers_and_is_raised(ray_session: ar.Session) -> None:
    with pytest.raises(KeyError, match="of the loop") as raised:
        ar.ml.train(wrong, (X, Y), workers=2)
    assert "in wrong" in raised.value.remote_traceback  # type: ignore[attr-defined]
    assert lease_books(ray_session) == {}
    # the CPUs are there for other work again
    assert list(ar.map(abs, [-1])) == [1]


def lease_books(session: ar.Session) -> Any:
    """Leases of the session, once those that were released are out of its books."""
    books = session._loop.dispatcher.lease_books
    until(lambda: not books())
    return books()


# --- what is refused ---------------------------------------------------------------------------


def test_a_loop_takes_one_worker() -> None:
    with pytest.raises(ar.errors.InvalidTypeError, match="one argument, the worker"):
        ar.ml.train(lambda: None, X)
    with pytest.raises(ar.errors.InvalidTypeError, match="one argument, the worker"):
        ar.ml.train(lambda worker, data: None, X)
    with pytest.raises(ar.errors.InvalidTypeError, match="function of a worker"):
        ar.ml.train("loop", X)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"workers": True},
        {"gpus_per_worker": 2},
        {"gpus_per_worker": 0.5},
        {"cpus_per_worker": 0},
        {"retries": -1},
        {"seed": -1},
        {"seed": 0.5},
    ],
)
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ar.errors.InvalidArgumentError, match=next(iter(options))):
        ar.ml.train(loop, X, **options)


def test_without_pytorch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"agentic-ray\[torch\]") as raised:
        ar.ml.train(loop, X)
    assert raised.value.name == "torch"


@with_torch
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ar.errors.CheckpointFolderError, match="cannot be written"):
        ar.ml.train(loop, X, checkpoint=tmp_path / "file" / "folder")
    with pytest.raises(OSError, match="cannot be written"):
        ar.ml.train(loop, X, checkpoint="nosuch://bucket/folder")
    with pytest.raises(ar.errors.InvalidArgumentError, match="folder"):
        ar.ml.train(loop, X, checkpoint="/")


@with_torch
def test_what_the_cluster_cannot_hold_is_refused(ray_session: ar.Session) -> None:
    with pytest.raises(ar.errors.ImpossibleResourcesError, match="room for 2"):
        ar.ml.train(loop, X, workers=3)
    with pytest.raises(ar.errors.ImpossibleResourcesError, match="room for 0"):
        ar.ml.train(loop, X, cpus_per_worker=3)
    with pytest.raises(ar.errors.NoSuitableDeviceError, match="no GPU"):
        ar.ml.train(loop, X, gpus_per_worker=1)
    with pytest.raises(ar.errors.InvalidArgumentError, match="1 rows, less than one"):
        ar.ml.train(loop, X[:1], workers=2)
    with pytest.raises(ar.errors.InvalidArgumentError, match="no rows"):
        ar.ml.train(loop, X[:0])
