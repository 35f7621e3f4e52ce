"""Each transport by itself, without Ray, and a session with each of them switched off."""

from __future__ import annotations

import operator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from test_here import _bundle, _inputs

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.graph.task import Codelet
from agentic_ray.runtime.execute import Payload
from agentic_ray.runtime.lines import Lines
from agentic_ray.runtime.outcomes import Finished, Report
from agentic_ray.runtime.sending import Sender, Switches
from agentic_ray.runtime.transports import ByRay, BySocket, InProcess, Packed, Parcel
from agentic_ray.runtime.values import CodeletTable
from agentic_ray.schedule.events import Start
from agentic_ray.schedule.placement import Placement


@dataclass
class _Ref:
    """Stand-in for an ObjectRef."""

    answer: Future[Report] = field(default_factory=Future)

    def future(self) -> Future[Report]:
        return self.answer


class _Executor:
    """Stand-in for an actor handle: notes the calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], tuple[Any, ...]]] = []
        self._options: dict[str, Any] = {}

    @property
    def run(self) -> _Executor:
        return self

    def options(self, **options: Any) -> _Executor:
        self._options = options
        return self

    def remote(self, *args: Any) -> list[_Ref]:
        self.calls.append((self._options, args))
        return [_Ref() for _ in range(self._options["num_returns"])]


def _parcel(codelet: Codelet, *, process: str = "shared", seconds: float = 1e-5) -> Parcel:
    bundle = _bundle(codelet)
    placement = Placement("c", "node", "cpu", 0.0, seconds, "because")
    command = Start("g", 7, 0, bundle, placement, process=process)  # type: ignore[arg-type]
    payload = Payload(b"", {}, bundle.inputs, {}, bundle.outputs)
    return Parcel(
        command,
        _Executor(),
        dict(zip(bundle.inputs, _inputs(), strict=True)),
        lambda: Packed(payload, {}),
    )


def test_small_steps_are_done_in_this_process_and_nothing_is_packed() -> None:
    transport = InProcess(lambda: "node")
    parcel = _parcel(Codelet("add", operator.add))
    sent = transport.send(parcel)
    assert sent is not None
    report = sent.answer.result(timeout=0)
    assert isinstance(report.outcome, Finished)
    assert "packed" not in vars(parcel)
    mine = Codelet("mine", lambda a, b: a + b)
    assert transport.send(_parcel(mine)) is None, "a function of the user's"
    assert transport.send(_parcel(Codelet("add", operator.add), process="own")) is None
    assert transport.send(_parcel(Codelet("add", operator.add), seconds=1.0)) is None


def test_a_socket_takes_nothing_while_there_is_no_line() -> None:
    class Unasked:
        """An executor that is asked for a line, and has not answered."""

        @property
        def open_line(self) -> Any:
            return type("Call", (), {"remote": lambda *_: _Ref()})()

    parcel = _parcel(Codelet("add", operator.add))
    parcel.executor = Unasked()
    assert BySocket(Lines(lambda _: None)).send(parcel) is None
    parcel.executor = None
    assert BySocket(Lines(lambda _: None)).send(parcel) is None


def test_ray_takes_any_bundle() -> None:
    parcel = _parcel(Codelet("mine", lambda a, b: a + b))
    sent = ByRay().send(parcel)
    ((options, args),) = parcel.executor.calls  # type: ignore[union-attr]
    assert args == ("7.0", parcel.packed.payload)
    assert options["num_returns"] == 1 + len(parcel.bundle.outputs)
    assert len(sent.refs) == options["num_returns"]
    assert not sent.answer.done()


def _work() -> list[Any]:
    x = xp.random.default_rng(3).random((300_000,), chunks=20_000)
    return [
        ar.map_reduce(lambda block: float(np.sqrt(block).sum()), np.arange(1e5), operator.add),
        float((x * x).sum()),
        np.asarray(xp.sort(x)[::1000]).tobytes(),
    ]


@pytest.mark.parametrize("in_process", [True, False])
@pytest.mark.parametrize("socket", [True, False])
def test_switches_leave_transports_out(in_process: bool, socket: bool) -> None:
    sender = Sender(CodeletTable(), _unused, _unused, _unused, Switches(in_process, socket))
    ways = [type(one).__name__ for one in sender._transports]
    assert ways == ["InProcess"] * in_process + ["BySocket"] * socket + ["ByRay"]


def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is sent")


def test_bits_do_not_depend_on_the_transport(ray_session: ar.Session) -> None:
    found = _work()
    ar.shutdown()
    ar.init(num_cpus=2, in_process_transport=False, socket_transport=False)
    try:
        assert _work() == found
    finally:
        ar.shutdown()  # the next test's session has the defaults
