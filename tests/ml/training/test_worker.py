"""A worker of a training, without Ray: its batches, checkpoints and refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from agentic_ray.errors import CheckpointError, InvalidArgumentError, InvalidTypeError
from agentic_ray.ml.training.feed import Feed

torch = pytest.importorskip("torch", reason="training needs the extra torch")

from agentic_ray.ml.training.worker import Worker, begin_random, read_states  # noqa: E402


class Alone:
    """In the place of a link: the only worker, with its checkpoint in a folder."""

    rank = local_rank = 0
    world_size = 1
    on_gpu = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.curve: dict[int, dict[str, Any]] = {}

    def report(self, metrics: Mapping[str, Any], folder: str | None) -> None:
        if folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(folder, self.folder)

    def tell(self, index: int, metrics: Mapping[str, Any]) -> None:
        self.curve[index] = dict(metrics)

    @contextmanager
    def checkpoint(self) -> Iterator[str | None]:
        yield str(self.folder) if self.folder.exists() else None


def feed(rows: int = 60, chunk: int = 16) -> Feed:
    generator = np.random.default_rng(5)
    x = generator.normal(size=(rows, 3)).astype(np.float32)
    cuts = range(0, rows, chunk)
    chunks = tuple([(x[at : at + chunk], x[at : at + chunk].sum(axis=1)) for at in cuts])
    return Feed(chunks, (), tuple([len(a) for a, _ in chunks]), None, True)


def parts() -> tuple[Any, Any]:
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    return model, torch.optim.Adam(model.parameters())


def trained(worker: Worker, stop: int | None = None) -> None:
    """Train, with a checkpoint after every third batch; stop as if the process died."""
    model, optimiser = parts()
    worker.restore(model=model, optimiser=optimiser)
    for done, (x, y) in enumerate(worker.batches(7, epochs=3)):
        if done == stop:
            return
        loss = ((model(x)[:, 0] - y) ** 2).mean() + 0.1 * np.random.random()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        states = {"model": model, "optimiser": optimiser} if worker.step % 3 == 2 else {}
        worker.report({"loss": loss.detach()}, **states)


def worker_of(link: Any, data: Feed | None = None, seed: int = 0) -> Worker:
    begin_random((seed,))
    return Worker(link, data or feed(), {}, seed)


def test_a_training_goes_on_after_its_checkpoint_with_the_same_losses(tmp_path: Path) -> None:
    whole, broken = Alone(tmp_path / "whole"), Alone(tmp_path / "broken")
    trained(worker_of(whole))
    assert len(whole.curve) == 27
    for stop in (0, 2, 5, 14, None):
        trained(worker_of(broken), stop)
    assert broken.curve == whole.curve
    kept, other = (read_states(str(link.folder))["model"] for link in (whole, broken))
    assert all(torch.equal(kept[name], other[name]) for name in kept)


def test_a_training_that_is_done_does_nothing_more(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    worker = worker_of(link)
    model, _ = parts()
    for _ in worker.batches(60):
        worker.report({"loss": 1}, model=model)
    again = Alone(tmp_path / "kept")
    worker = worker_of(again)
    assert worker.restore(model=model)
    assert list(worker.batches(60)) == []
    assert again.curve == link.curve == {0: {"epoch": 0, "step": 0, "loss": 1}}


def test_a_loop_that_leaves_its_checkpoint_alone_is_refused(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    trained(worker_of(link))
    with pytest.raises(InvalidArgumentError, match="restore"):
        worker_of(link).batches(7)
    with pytest.raises(InvalidArgumentError, match="restore"):
        worker_of(link).report({"loss": 1})


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    trained(worker_of(link))
    model, optimiser = parts()
    with pytest.raises(CheckpointError, match="rows 60, and now it is 61"):
        worker_of(link, feed(61)).restore(model=model, optimiser=optimiser)
    with pytest.raises(CheckpointError, match="seed"):
        worker_of(link, seed=1).restore(model=model, optimiser=optimiser)
    with pytest.raises(CheckpointError, match="holds model, optimiser"):
        worker_of(link).restore(model=model)
    worker = worker_of(link)
    worker.restore(model=model, optimiser=optimiser)
    with pytest.raises(CheckpointError, match="batch_size 7, and now it is 8"):
        worker.batches(8)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    trained(worker_of(link))
    states = link.folder / "states.pt"
    states.write_bytes(states.read_bytes()[:100])
    model, optimiser = parts()
    with pytest.raises(CheckpointError, match=r"states\.pt"):
        worker_of(link).restore(model=model, optimiser=optimiser)
    (link.folder / "training.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"training\.json"):
        worker_of(link)


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    worker = worker_of(Alone(tmp_path / "kept"))
    with pytest.raises(InvalidTypeError, match="'loss' must be a number"):
        worker.report({"loss": [1.0]})
    with pytest.raises(InvalidTypeError, match="'loss' must be a number"):
        worker.report({"loss": torch.zeros(2)})
    with pytest.raises(InvalidTypeError, match="state_dict"):
        worker.report({"loss": 1.0}, model=3)
    for wrong in (0, 2.5, True):
        with pytest.raises(InvalidArgumentError, match="batch_size"):
            worker.batches(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="epochs"):
        worker.batches(2, epochs=0)
    worker.batches(2)
    with pytest.raises(InvalidArgumentError, match="epochs="):
        worker.batches(2)
    with pytest.raises(InvalidArgumentError, match="no data"):
        Worker(Alone(tmp_path / "kept"), None, {}, 0).batches(2)  # type: ignore[arg-type]


def test_a_batch_needs_a_row_for_each_worker(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    link.world_size = 3
    with pytest.raises(InvalidArgumentError, match="one for each of 3"):
        worker_of(link).batches(2)


def batch_of(chunks: tuple[Any, ...], names: Any = None, several: bool = False) -> Any:
    lengths = tuple([(c[0] if isinstance(c, tuple) else c).shape[0] for c in chunks])
    made = Feed(chunks, (), lengths, names, several)
    worker = Worker(Alone(Path("/nowhere")), made, {}, 0)  # type: ignore[arg-type]
    (found,) = worker.batches(sum(lengths), shuffle=False)
    return found


def test_batches_have_the_form_of_the_data() -> None:
    images = np.arange(48.0).reshape(6, 2, 2, 2)
    assert torch.equal(batch_of((images[:4], images[4:])), torch.from_numpy(images))
    found = batch_of(((images[:4], np.arange(4)), (images[4:], np.arange(4, 6))), ("x", "y"), True)
    assert found.keys() == {"x", "y"}
    assert torch.equal(found["y"], torch.arange(6))
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, 0.25, 0.0], "text": ["p", "q", "r"]})
    table = batch_of((frame.iloc[:1], frame.iloc[1:]))
    assert torch.equal(table["a"], torch.tensor([1, 2, 3]))
    assert list(table["text"]) == ["p", "q", "r"]
    matrix = sp.random(6, 4, 0.5, format="csr", random_state=0)
    assert torch.equal(batch_of((matrix[:5], matrix[5:])), torch.from_numpy(matrix.toarray()))


class Stateful:
    """In the place of a model: has a state, and takes one."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state["state"]


def test_a_state_that_would_have_to_be_unpickled_is_refused_before_it_is_written(
    tmp_path: Path,
) -> None:
    worker = Worker(Alone(tmp_path / "kept"), feed(), {}, 0)
    with pytest.raises(InvalidTypeError, match="'odd' holds a "):
        worker.report({"loss": 1.0}, odd=Stateful([tmp_path]))
    assert not (tmp_path / "kept").exists()


def test_a_planted_checkpoint_runs_no_code(tmp_path: Path) -> None:
    link = Alone(tmp_path / "kept")
    worker = Worker(link, feed(), {}, 0)
    worker.report({"loss": 1.0}, model=Stateful((1, [np.float64(2.5)], {"a": torch.ones(2)})))
    states = read_states(str(link.folder))
    assert states["model"]["state"][:2] == (1, [2.5])
    planted = tmp_path / "planted"
    (plant,) = [path for path in link.folder.iterdir() if path.name.startswith("states")]
    torch.save({"model": Planted(planted)}, plant)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_states(str(link.folder))
    assert not planted.exists()


class Planted:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))
