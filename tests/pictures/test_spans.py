"""How spans are laid on lanes, joined and counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.pictures import HeldBytes, Span
from agentic_ray.pictures.held import summed
from agentic_ray.pictures.spans import joined, lanes
from agentic_ray.pictures.wording import bytes_text, colours, seconds_text, short_name

_SPANS = st.lists(
    st.builds(
        lambda number, codelet, node, device, start, length: Span(
            f"t{number}", codelet, node, device, start, start, start + length
        ),
        st.integers(0, 99),
        st.sampled_from("ab"),
        st.sampled_from(["n1", "n2", "n10"]),
        st.sampled_from(["cpu", "gpu0"]),
        st.integers(0, 50),
        st.integers(0, 20),
    ),
    max_size=40,
)


def _most_at_once(spans: list[Span]) -> int:
    """The most spans that overlap at one time; those that only touch do not."""
    points = [(span.start_seconds, span.finish_seconds) for span in spans]
    return max(
        (sum(start <= at < max(end, start + 1e-6) for start, end in points) for at, _ in points),
        default=0,
    )


@given(_SPANS)
def test_lanes_hold_all_spans_none_over_another_and_are_no_more_than_needed(
    spans: list[Span],
) -> None:
    rows = lanes(spans)
    assert sorted(map(repr, spans)) == sorted(repr(span) for row in rows for span in row.spans)
    by_device: dict[tuple[str, str], list[Span]] = {}
    for row in rows:
        assert all((span.node_id, span.device) == (row.node_id, row.device) for span in row.spans)
        for one, other in zip(row.spans, row.spans[1:], strict=False):
            assert one.finish_seconds <= other.start_seconds
        by_device.setdefault((row.node_id, row.device), []).extend(row.spans)
    for device, group in by_device.items():
        count = sum((row.node_id, row.device) == device for row in rows)
        assert count <= max(1, _most_at_once(group))
    assert list(dict.fromkeys(row.node_id for row in rows)) == sorted(
        {span.node_id for span in spans}, key=lambda name: (len(name), name)
    )


@given(_SPANS, st.integers(0, 10))
def test_joined_spans_cover_what_they_stand_for(spans: list[Span], gap: int) -> None:
    for row in lanes(spans):
        found = joined(row.spans, float(gap))
        assert len(found) <= len(row.spans)
        assert found[0].start_seconds == row.spans[0].start_seconds
        assert found[-1].finish_seconds == row.spans[-1].finish_seconds
        for span in row.spans:
            assert any(
                one.start_seconds <= span.start_seconds
                and span.finish_seconds <= one.finish_seconds
                for one in found
            )


def test_short_spans_of_several_codelets_are_joined_too() -> None:
    spans = [
        Span(f"t{i}", "ab"[i % 2], "n", "cpu", i / 1e6, i / 1e6, (i + 1) / 1e6)
        for i in range(10_000)
    ]
    assert len(joined(spans, 1e-4)) <= 110


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100), st.booleans()), max_size=30))
def test_held_bytes_are_those_of_the_values_there(steps: list[tuple[int, int, bool]]) -> None:
    held, there = HeldBytes(), {}
    for at, (key, size, kept) in enumerate(steps):
        if kept:
            held.keep(at, key, size)
            there[key] = size
        else:
            held.drop(at, [key])
            there.pop(key, None)
        level = held.levels[-1][1] if held.levels else 0
        assert level == sum(there.values())


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=6).map(
            lambda curve: sorted(dict(curve).items())
        ),
        max_size=4,
    )
)
def test_curves_are_added_up_at_every_time(curves: list[list[tuple[int, int]]]) -> None:
    def level(curve: list[tuple[float, int]], at: float) -> int:
        return next((size for seconds, size in reversed(curve) if seconds <= at), 0)

    total = summed(curves)
    for at in range(22):
        assert level(total, at) == sum(level(curve, at) for curve in curves)


def test_figures_and_names_are_short() -> None:
    assert [seconds_text(s) for s in (0, 2e-6, 0.0021, 0.99999, 59.96, 119.99, 3700, 90_000)] == [
        *("0 s", "2 µs", "2.1 ms", "1 s", "60 s", "120 s"),
        *("61 min 40 s", "25 h 0 min"),
    ]
    assert [bytes_text(n) for n in (0, 1536, 1 << 30, 1 << 50)] == [
        *("0 B", "1.5 KiB", "1 GiB", "1024 TiB")
    ]
    assert short_name("map[len+add]-0a1b2c3d4e5f/12") == "map[len+add]"
    assert short_name("/odd") == "/odd"
    many = colours([f"c{i}" for i in range(50)])
    assert len(many) == 50
    assert many["c20"] == many["c49"] != many["c0"]
