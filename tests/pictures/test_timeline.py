"""Timelines as SVG, as a page, and as a trace."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from agentic_ray.errors import InvalidArgumentError, NothingRanError
from agentic_ray.pictures import Span, Timeline
from agentic_ray.schedule.metrics import PlacementRecord
from agentic_ray.schedule.spans import spans_of, timeline_of

HOSTILE = '</script><script>alert("1")</script>&\'"<b>'
SPANS = (
    Span("f/0", "f", "n1", "cpu", 10.0, 10.5, 12.0, 1.0, 100, 7, "it is free"),
    Span("f/1", "f", "n1", "cpu", 10.0, 11.0, 13.0, None, 100, 0, "it is free", retried=True),
    Span(HOSTILE, HOSTILE, HOSTILE, "GPU-00001111-2222", 10.0, 12.0, 14.0, 4.0, note=HOSTILE),
)
TIMELINE = Timeline(HOSTILE, SPANS, ((12.0, 100), (13.0, 200), (14.0, 0)))


def _data(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_drawing_is_xml_with_a_bar_and_all_about_each_task() -> None:
    root = ElementTree.fromstring(TIMELINE.svg())
    tips = [title.text for title in root.findall(".//{*}rect/{*}title")]
    assert len(tips) == 3
    assert tips[0].splitlines() == [
        *("f/0", "cpu of n1", "500 ms to 2 s", "took 1.5 s, predicted 1 s"),
        *("sent 500 ms before it began", "made 100 B", "took 7 B from other nodes", "it is free"),
    ]
    assert any("run again after a loss" in tip for tip in tips)
    assert any(HOSTILE in tip for tip in tips)
    assert root.findall(".//{*}path"), "the bytes held are drawn"


def test_the_page_has_a_text_for_each_bar_and_needs_nothing_else() -> None:
    page = TIMELINE.html()
    tips = _data(page)["tips"]
    bars = [int(number) for number in re.findall(r'data-i="(\d+)"', page)]
    assert sorted(bars) == [0, 1, 2]
    assert tips[0].startswith("f/0\ncpu of n1\n")
    assert HOSTILE in tips[2]
    assert page.count("<script") == page.count("</script>") == 2
    assert html.escape(HOSTILE, quote=False) in page or html.escape(HOSTILE) in page
    assert not re.findall(r"(?:src|href)\s*=|@import|url\((?!#)", page)
    assert page.count("<circle") == 2, "a dot a prediction"


def test_the_trace_has_each_task_on_its_node_in_microseconds() -> None:
    events = json.loads(TIMELINE.trace())["traceEvents"]
    ran = [event for event in events if event["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in ran if e["name"] == "f"] == [
        ("f", 0.5e6, 1.5e6),
        ("f", 1.0e6, 2.0e6),
    ]
    named = {e["pid"]: e["args"]["name"] for e in events if e.get("name") == "process_name"}
    assert [named[e["pid"]] for e in ran if e["name"] != "f"] == [HOSTILE]
    assert len({(e["pid"], e["tid"]) for e in ran}) == 3
    assert [e["args"]["bytes"] for e in events if e["ph"] == "C"] == [100, 200, 0]
    assert ran[0]["args"]["predicted_seconds"] == 1.0


@pytest.mark.parametrize("ending", ["html", "svg", "json"])
def test_the_ending_of_the_file_says_which_form_it_has(tmp_path: Path, ending: str) -> None:
    path = TIMELINE.save(tmp_path / f"x.{ending}")
    forms = {"html": TIMELINE.html, "svg": TIMELINE.svg, "json": TIMELINE.trace}
    assert path.read_text() == forms[ending]()


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"'x.png' should end with .html, .svg or .json"):
        TIMELINE.save(tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_of_very_many_tasks_those_that_touch_are_one_bar() -> None:
    spans = tuple(
        Span(f"t{i}", f"c{i % 3}", f"n{i % 7}", "cpu", i / 1e4, i / 1e4, (i + 7) / 1e4)
        for i in range(30_000)
    )
    timeline = Timeline("many", spans)
    page = timeline.html()
    tips = _data(page)["tips"]
    bars = [int(number) for number in re.findall(r'data-i="(\d+)"', page)]
    assert 1000 < len(bars) <= 20_000
    assert len(bars) == len(set(bars))
    assert all(tips[number] for number in bars)
    assert any("…" in tips[number] for number in bars)
    shown = timeline._repr_html_()
    assert shown.count("<title>") <= 4_000
    ElementTree.fromstring(shown)


@pytest.mark.parametrize(
    "spans",
    [(), (Span("t", "f", "n", "cpu", 1.0, 1.0, 1.0, 0.0),)],
    ids=["no task", "no time"],
)
def test_nothing_and_no_time_at_all_can_be_drawn(spans: tuple[Span, ...]) -> None:
    timeline = Timeline("nothing", spans)
    ElementTree.fromstring(timeline.svg())
    assert _data(timeline.html())["seconds"] == 0
    assert repr(timeline).startswith(f"<timeline of nothing: {len(spans)} task")


def test_records_of_placements_become_spans(tmp_path: Path) -> None:
    record = PlacementRecord(
        *("map[f]-0123456789ab/3", "n1", "cpu", 0.5, 1.0, "it is free", 10.0, 12.0),
        retried=True,
        made_bytes=5,
        moved_bytes=6,
    )
    (span,) = spans_of([record])
    assert span == Span(
        *("map[f]-0123456789ab/3", "map[f]", "n1", "cpu", 10.0, 11.0, 12.0, 0.5, 5, 6),
        *("it is free", True),
    )
    path = tmp_path / "x.svg"
    assert timeline_of("job", [record], path=path).spans == (span,)
    assert "<svg" in path.read_text()
    with pytest.raises(NothingRanError, match="job: there is no record"):
        timeline_of("job", [])
