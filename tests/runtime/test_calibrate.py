"""The measurement of a host: plausible, stored, reused, and never fatal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

import agentic_ray as ar
from agentic_ray.runtime import calibrate
from agentic_ray.runtime.lines import Lines
from agentic_ray.schedule.cost_model import CALL_BOUNDS_SECONDS


def test_the_rates_are_plausible() -> None:
    rates = calibrate.measure(np.copy)
    assert 1e8 < rates.flops_per_second < 1e14
    assert 1e8 < rates.bytes_per_second < 1e13
    assert 1e7 < rates.store_bytes_per_second < 1e13


def test_the_object_store_is_measured_on_a_node(ray_session: ar.Session) -> None:
    rates = calibrate.measure()
    assert 1e6 < rates.store_bytes_per_second < 1e13
    deadline = time.monotonic() + 90
    while ray_session.model.calibration.store_bytes_per_second == 1e9:  # what is assumed at first
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_second_time_it_is_read_and_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calibrate.host_rates(tmp_path, np.copy)
    monkeypatch.setattr(calibrate, "measure", lambda _: pytest.fail("measured again"))
    assert calibrate.host_rates(tmp_path, np.copy) == first


def test_what_calls_take_is_kept_beside_the_rates(tmp_path: Path) -> None:
    assert calibrate.host_calls(tmp_path) is None
    rates = calibrate.host_rates(tmp_path, np.copy)
    for seconds in (0.002, 0.003):
        calibrate.keep_host_calls(calibrate.HostCalls(seconds), tmp_path)
        assert calibrate.host_calls(tmp_path) == calibrate.HostCalls(seconds)
    assert calibrate.host_rates(tmp_path, np.copy) == rates
    for path in (tmp_path / "calibration").glob("*-calls.json"):
        path.write_text('{"version": 2, "overhead_seconds": 0}')
    assert calibrate.host_calls(tmp_path) is None


def test_what_a_call_takes_is_measured_on_calls_through_ray_that_are_alone(
    ray_session: ar.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lines, "send", lambda *_: None)
    pause = ar.Codelet("tests.pause", time.sleep)
    deadline = time.monotonic() + 90
    count = 0
    while ray_session.model.measured_call_seconds is None:
        assert time.monotonic() < deadline
        count += 1
        task = ar.Task.of(pause, 0.03, key=f"pause {count}")
        ray_session.submit(ar.TaskGraph([task], [task.key])).result(timeout=60)
    least, most = CALL_BOUNDS_SECONDS
    assert least <= ray_session.model.call_overhead_seconds <= most


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"version": 2}',
        '{"version": 2, "flops_per_second": -1, "bytes_per_second": 1, '
        '"store_bytes_per_second": 1}',
        '{"version": 2, "flops_per_second": "x", "bytes_per_second": 1, '
        '"store_bytes_per_second": 1}',
    ],
)
def test_a_damaged_store_is_set_aside_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    calibrate.host_rates(tmp_path, np.copy)
    (path,) = (tmp_path / "calibration").glob("*.json")
    path.write_text(content)
    rates = calibrate.host_rates(tmp_path, np.copy)
    assert rates.flops_per_second > 0
    assert "set aside" in caplog.text
    assert path.with_suffix(".bad").read_text() == content
    assert json.loads(path.read_text())["flops_per_second"] == rates.flops_per_second


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "calibration").write_text("a file where the folder should be")
    assert calibrate.host_rates(tmp_path, np.copy).bytes_per_second > 0
    assert "cannot be stored" in caplog.text
