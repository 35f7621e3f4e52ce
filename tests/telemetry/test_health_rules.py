"""The rules on GPUs and silent nodes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.telemetry.health import FATAL_XIDS, assess, is_silent, telling_xid
from agentic_ray.telemetry.state import GpuState
from agentic_ray.telemetry.xid import XidLog

GPU = GpuState("GPU-1", 0, "X")


@pytest.mark.parametrize("xid", sorted(FATAL_XIDS))
def test_fatal_xids(xid: int) -> None:
    judged = assess(replace(GPU, xid=xid))
    assert not judged.healthy
    assert judged.reason == f"XID {xid}: {FATAL_XIDS[xid]}"


@pytest.mark.parametrize("xid", [None, 13, 31, 43, 45, 63, 94])
def test_harmless_xids(xid: int | None) -> None:
    assert assess(replace(GPU, xid=xid)).healthy


def test_a_lost_gpu_keeps_its_reason() -> None:
    lost = replace(GPU, healthy=False, reason="lost", xid=79)
    assert assess(lost).reason == "lost"


@given(st.lists(st.none() | st.integers(0, 5), max_size=12))
def test_ecc_counts_from_the_first_reading_or_the_last_reset(counts: list[int | None]) -> None:
    previous = None
    known: list[int] = []
    for count in counts:
        previous = assess(replace(GPU, ecc_uncorrected=count), previous)
        if count is not None:
            known.append(count)
        # healthy: the newest known count is the lowest so far
        assert previous.healthy == (not known or known[-1] == min(known))


@given(st.lists(st.sampled_from([13, 31, 63, 48, 79, 95])))
def test_telling_xid(xids: list[int]) -> None:
    fatal = [xid for xid in xids if xid in FATAL_XIDS]
    assert telling_xid(xids) == (fatal[0] if fatal else xids[-1] if xids else None)


def test_silence() -> None:
    assert not is_silent(None, 1.0)
    assert not is_silent(5.0, 1.0)
    assert is_silent(5.1, 1.0)
    assert not is_silent(1.9, 0.01)  # a floor, whatever the interval
    assert is_silent(2.1, 0.01)


@pytest.mark.parametrize("interval", [0.0, -1.0, float("nan")])
def test_silence_needs_an_interval(interval: float) -> None:
    with pytest.raises(InvalidArgumentError):
        is_silent(1.0, interval)


def test_xid_log() -> None:
    log = XidLog()
    log.record("a", 31)
    log.record("a", 95, 2, 0)
    log.record("a", 31)
    log.record("b", 79)
    assert log.xids("a") == [95, 31]
    assert log.xids("a", 2, 0) == [95, 31]
    assert log.xids("a", 1, 0) == [31]
    log.forget("a")
    assert log.xids("a") == []
    assert log.xids("b") == [79]
