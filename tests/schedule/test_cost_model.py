"""The cost model: hints first, then what was observed, robustly; and how good it says it is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Bundle, Codelet, CostHint, Task
from agentic_ray.schedule import CostModel, cost_model
from agentic_ray.schedule.calibration import Calibration
from agentic_ray.schedule.cost_model import CALL_BOUNDS_SECONDS, Knowledge
from agentic_ray.schedule.curves import WINDOW, Curve, RunningMedian


def work(*_: object) -> None: ...


BOTH = Codelet("both", work, work)


def seconds(model: CostModel, size: float, kind: str = "cpu", codelet: str = "c") -> float:
    found = model.predict_size(codelet, kind, size)
    assert found is not None
    return found.seconds


def test_nothing_is_known_of_what_was_neither_hinted_nor_seen() -> None:
    model = CostModel()
    assert model.predict(Task.of(BOTH, key="a"), "cpu") is None
    assert model.predict_size("both", "cpu", 1) is None
    assert model.seconds(Bundle("a", (Task.of(BOTH, key="a"),)), "cpu") is None


def test_a_hint_is_turned_to_seconds_by_the_calibration() -> None:
    model = CostModel(Calibration(cpu_flops_per_second=1e9, cpu_bytes_per_second=1e8))
    computing = Task.of(BOTH, key="a", cost=CostHint(flops=3e9, read_bytes=10))
    moving = Task.of(BOTH, key="b", cost=CostHint(flops=10, read_bytes=int(5e8)))
    for task, expected in ((computing, 3.0), (moving, 5.0)):
        predicted = model.predict(task, "cpu")
        assert predicted is not None
        assert predicted.seconds == pytest.approx(expected)
        assert predicted.spread_seconds == predicted.seconds  # a guess, and it says so


def test_what_was_seen_replaces_the_hint() -> None:
    model = CostModel()
    task = Task.of(BOTH, key="a", cost=CostHint(flops=1e9))
    model.observe(task, "cpu", 7.0)
    predicted = model.predict(task, "cpu")
    assert predicted is not None
    assert predicted.seconds == pytest.approx(7.0)
    on_gpu = model.predict(task, "gpu")
    assert on_gpu is not None
    assert on_gpu.seconds < 1  # of which it says nothing


def test_an_outlier_does_not_matter() -> None:
    model = CostModel()
    for observed in (1.5, 0.010, 0.011, 0.010, 0.009, 0.010):  # compiling, then running
        model.observe_size("c", "cpu", 100, observed)
    assert seconds(model, 100) == pytest.approx(0.010, rel=0.06)


def test_a_drift_is_followed_within_a_window() -> None:
    model = CostModel()
    for _ in range(300):
        model.observe_size("c", "cpu", 100, 1.0)
    for _ in range(WINDOW):
        model.observe_size("c", "cpu", 100, 3.0)
    assert seconds(model, 100) == pytest.approx(3.0)


@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
def test_sizes_never_seen_follow_the_slope_of_those_that_were(power: float) -> None:
    model = CostModel()
    rng = random.Random(1)
    for exponent in range(6, 14):
        for _ in range(9):
            size = 2**exponent * rng.uniform(1.0, 1.4)
            model.observe_size("c", "cpu", size, 1e-6 * size**power * rng.lognormvariate(0, 0.1))
    for size in (2.0**3, 3000.0, 2.0**20):
        assert seconds(model, size) == pytest.approx(1e-6 * size**power, rel=0.35)


@given(
    st.lists(
        st.tuples(st.floats(1e-6, 1e12), st.floats(0, 1e9)),
        min_size=1,
        max_size=60,
    ),
    st.floats(1e-6, 1e12),
)
def test_a_prediction_is_a_time_and_grows_along_the_slope(
    observations: list[tuple[float, float]], size: float
) -> None:
    model = CostModel()
    for seen_size, observed in observations:
        model.observe_size("c", "cpu", seen_size, observed)
    predicted = model.predict_size("c", "cpu", size)
    assert predicted is not None
    assert 0 <= predicted.seconds < math.inf
    assert 0 <= predicted.spread_seconds < math.inf
    largest = max(seen_size for seen_size, _ in observations)
    assert seconds(model, largest * 8) >= seconds(model, largest * 4) >= 0


@pytest.mark.parametrize("observed", [float("nan"), float("inf"), -1.0])
def test_what_is_no_time_is_ignored(observed: float) -> None:
    model = CostModel()
    model.observe_size("c", "cpu", 1, observed)
    assert model.predict_size("c", "cpu", 1) is None


def test_a_time_too_short_to_measure_is_one() -> None:
    model = CostModel()
    model.observe_size("c", "cpu", 1, 0.0)
    assert 0 <= seconds(model, 1) < 1e-6


# --- devices -------------------------------------------------------------------------------


def test_how_slow_each_device_is_is_learnt_beside_the_codelet() -> None:
    model = CostModel()
    rng = random.Random(3)
    speeds = {(f"n{i}", "cpu"): rng.uniform(1, 8) for i in range(16)}
    base = {"short": 0.1, "long": 2.0}
    for _ in range(3000):
        place = rng.choice(list(speeds))
        name = rng.choice(list(base))
        observed = base[name] / speeds[place] * rng.lognormvariate(0, 0.2)
        model.observe_size(name, "cpu", 1, observed, place)
    for place, speed in speeds.items():
        for name, alone in base.items():
            predicted = seconds(model, 1, codelet=name) * model.slowness(place, "cpu")
            assert predicted == pytest.approx(alone / speed, rel=0.25)


def test_a_device_never_seen_is_taken_for_a_usual_one() -> None:
    model = CostModel()
    for i, factor in enumerate((1, 4, 4, 4)):
        for _ in range(10):
            model.observe_size("c", "cpu", 1, 1.0 * factor, (f"n{i}", "cpu"))
    assert model.slowness(("new", "cpu"), "cpu") == pytest.approx(4, rel=0.01)
    assert model.slowness(("new", "GPU-1"), "gpu") == 1.0


def test_a_device_that_turns_slow_is_noticed_soon() -> None:
    model = CostModel()
    places = [(f"n{i}", "cpu") for i in range(8)]
    for _ in range(60):
        for place in places:
            model.observe_size("c", "cpu", 1, 1.0, place)
    for _ in range(WINDOW):
        for place in places:
            model.observe_size("c", "cpu", 1, 10.0 if place == places[0] else 1.0, place)
    assert seconds(model, 1) == pytest.approx(1.0)
    assert model.slowness(places[0], "cpu") == pytest.approx(10.0)


def test_the_only_device_is_the_reference() -> None:
    model = CostModel()
    for observed in (1.0, 2.0, 2.0, 2.0, 2.0):
        model.observe_size("c", "cpu", 1, observed, ("n0", "cpu"))
    assert model.slowness(("n0", "cpu"), "cpu") == 1.0
    assert seconds(model, 1) == pytest.approx(2.0)


def test_one_slow_start_does_not_make_the_only_device_slow_for_good() -> None:
    kept: list[Knowledge] = []
    for _ in range(5):  # sessions, each of which learns from those before
        model = CostModel()
        model.learn(kept)
        for seen in (100.0, *[1.0] * WINDOW):
            model.observe(Task.of(BOTH, key="a"), "cpu", seen, ("node", "cpu"))
        kept = model.knowledge()
        assert model.slowness(("node", "cpu"), "cpu") == 1.0
        assert seconds(model, 1, codelet="both") == pytest.approx(1.0)


def test_of_what_is_well_known_only_the_unexpected_tells_something() -> None:
    model, task = CostModel(), Task.of(BOTH, key="a")
    left = [model.observe(task, "cpu", 1.0, ("node", "cpu")) for _ in range(300)]
    assert left[0] == 0  # the next is worth looking at, whatever it is
    assert left[-1] > 0
    before = model.error_report().observations
    assert model.as_expected(1.0, 1.05)
    assert model.error_report().observations == before + 1
    assert not model.as_expected(1.0, 1.2)
    assert not model.as_expected(1.0, math.nan)
    assert not model.as_expected(0.0, 0.0)
    assert model.error_report().observations == before + 1


def test_what_a_call_takes_is_measured_once_enough_are_seen() -> None:
    model = CostModel(Calibration(call_overhead_seconds=0.003))
    model.observe_call(math.nan)
    for seen in (0.4, 0.0012, 0.0011, 0.0013, 0.0012, 0.5, 0.0014):  # a cold start, other load
        model.observe_call(seen)
    assert model.measured_call_seconds is None
    assert model.call_overhead_seconds == 0.003
    model.observe_call(0.0012)
    assert model.call_overhead_seconds == model.measured_call_seconds == 0.0012


@pytest.mark.parametrize(("seen", "found"), [(0.0, 0), (1e9, 1)])
def test_no_measurement_of_calls_is_believed_beyond_bounds(seen: float, found: int) -> None:
    model = CostModel()
    for _ in range(WINDOW):
        model.observe_call(seen)
    assert model.call_overhead_seconds == CALL_BOUNDS_SECONDS[found]


# --- error report --------------------------------------------------------------------------


def test_the_error_report_compares_each_prediction_with_what_came() -> None:
    model = CostModel()
    assert model.error_report().median_relative_error is None
    model.observe_size("c", "cpu", 1, 1.0)
    model.observe_size("c", "cpu", 1, 2.0)  # expected 1, so off by half of what came
    report = model.error_report()
    assert report.median_relative_error == pytest.approx(0.5)
    assert (report.predictions, report.observations) == (1, 2)


def test_the_median_error_is_small_after_three_runs_of_a_noisy_suite() -> None:
    rng = random.Random(5)
    model = CostModel()
    for _ in range(3):
        for name, base in (("a", 0.01), ("b", 0.3), ("c", 2e-4)):
            for size in (1000, 8000, 8000, 64_000):
                for node in ("n0", "n1"):
                    slow = 3.0 if node == "n1" else 1.0
                    observed = base * slow * size / 1000 * rng.lognormvariate(0, 0.2)
                    model.observe_size(name, "cpu", size, observed, (node, "cpu"))
    error = model.error_report().median_relative_error
    assert error is not None
    assert error <= 0.25


# --- parts ---------------------------------------------------------------------------------


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=100))
def test_the_running_median_is_that_of_the_last_window(values: list[float]) -> None:
    running = RunningMedian(values)
    last = sorted(values[-WINDOW:])
    assert running.values == tuple(values[-WINDOW:])
    assert last[(len(last) - 1) // 2] <= running.median <= last[len(last) // 2]
    assert running.count == len(values)


def test_memory_of_a_curve_is_bounded() -> None:
    curve = Curve()
    for i in range(10_000):
        curve.add(1 + i % 4, 0.0)
    assert len(curve.classes) <= 3
    assert all(len(seen.values) <= WINDOW for _, seen in curve.classes.values())


@pytest.mark.parametrize(
    "options",
    [
        {"cpu_flops_per_second": 0},
        {"store_bytes_per_second": float("nan")},
        {"call_overhead_seconds": -1},
        {"gpu_bytes_per_second": float("inf")},
    ],
)
def test_a_calibration_needs_usable_rates(options: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(options))):
        Calibration(**options)


def test_moving_a_value_costs_latency_and_bandwidth() -> None:
    model = CostModel(Calibration(store_bytes_per_second=1e6, transfer_latency_seconds=0.5))
    assert model.transfer_seconds(2e6) == pytest.approx(2.5)


def test_the_codelets_observed_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_model, "MOST_CODELETS", 10)
    model = CostModel()
    for number in range(1000):
        model.observe_size(f"c{number}", "cpu", 100, 1.0)
        model.observe_size("always", "cpu", 100, 2.0)
        model.observe_bytes(f"c{number}", 8)
    assert len(model._curves) == len(model._seen) == len(model._bytes) == 10
    assert {known.codelet for known in model.knowledge()} == {
        "always", *[f"c{number}" for number in range(991, 1000)],
    }  # fmt: skip
    model.learn([Knowledge(f"d{n}", "cpu", (100.0,), (1.0,)) for n in range(30)])
    assert len(model._curves) == 10
    assert model.predict_size("d29", "cpu", 100) is not None
