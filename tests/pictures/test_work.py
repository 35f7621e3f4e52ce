"""Pictures of real work: plans of arrays, and runs on the cluster."""

from __future__ import annotations

import json
import operator
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray.errors import InvalidArgumentError, NothingRanError
from agentic_ray.graph import Ref


def _texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).findall(".//{*}text")]


def test_a_plan_of_an_array_has_a_box_for_each_task_and_computes_nothing(tmp_path: Path) -> None:
    def refused(block: np.ndarray) -> np.ndarray:
        raise AssertionError("it was computed")

    x = xp.map_blocks(refused, xp.ones((600, 600), chunks=(200, 300)), dtype=float)
    path = tmp_path / "x.svg"
    drawing = x.sum(axis=0).visualize(path)
    count = int(re.match(r"([\d,]+) tasks for float64 \(600,\)", drawing.title)[1])
    assert drawing.svg().count("<g>") == count
    assert count >= 6
    assert path.read_text() == drawing.svg()
    together = _texts(x.sum(axis=0).visualize(most=1).svg())
    assert any("× 6" in text for text in together)
    with pytest.raises(InvalidArgumentError, match=r"should end with .svg or .html"):
        x.visualize(tmp_path / "x.png")


def test_an_array_that_is_there_has_one_box(tmp_path: Path) -> None:
    x = xp.asarray(np.ones((20_000,)), chunks=5_000)
    drawing = x.visualize(tmp_path / "x.html")
    assert "nothing to compute" in drawing.title
    assert any("× 4" in text for text in _texts(drawing.svg()))
    assert (tmp_path / "x.html").exists()


def test_an_array_is_shown_with_its_chunks_and_state() -> None:
    x = xp.ones((40, 30, 20), chunks=(10, 30, 5))
    shown = x._repr_html_()
    for fact in ("4 × 1 × 4", "(10, 30, 5), 11.72 KiB", "float64", "not computed", "<polygon"):
        assert fact in shown
    assert "here" in xp.asarray(np.ones(100_000))._repr_html_()
    assert "<svg" not in xp.ones(())._repr_html_()


def test_a_run_tells_of_its_bytes_over_time(ray_session: ar.Session, tmp_path: Path) -> None:
    size = 1_000_000
    make = ar.Codelet("make", cpu=lambda n: np.full(size // 8, float(n)))
    total = ar.Codelet("total", cpu=lambda *parts: float(sum(part[0] for part in parts)))
    parts = [ar.Task.of(make, n, key=f"part/{n}") for n in range(3)]
    whole = ar.Task.of(total, *[Ref(task.key) for task in parts], key="whole")
    run = ray_session.submit(ar.TaskGraph([*parts, whole], ["whole"]), target_seconds=0.0)
    assert run.result(120) == [3.0]
    timeline = run.timeline(tmp_path / "run.json")
    assert {span.codelet for span in timeline.spans} == {"part", "whole"}
    made = {span.task: span.made_bytes for span in timeline.spans}
    assert all(made[f"part/{n}"] >= size for n in range(3))
    assert max(level for _, level in timeline.memory) >= 3 * size
    assert timeline.memory[-1][1] == 0, "given up when they were added up"
    events = json.loads((tmp_path / "run.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == 4


def test_a_job_is_drawn_once_it_has_begun(ray_session: ar.Session, tmp_path: Path) -> None:
    job = ar.map_reduce_job(abs, range(-300, 300), operator.add)
    with pytest.raises(NothingRanError, match="map_reduce abs"):
        job.timeline(tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
    assert "<svg" not in job._repr_html_()
    assert job.result() == 2 * sum(range(300)) + 300
    job.timeline(tmp_path / "x.html")
    page = (tmp_path / "x.html").read_text()
    assert all(record.bundle in page for record in job.placements())
    shown = job._repr_html_()
    assert "succeeded" in shown
    assert "<svg" in shown
    assert "efficiency" in shown
    with pytest.raises(InvalidArgumentError, match="should end with"):
        job.timeline(tmp_path / "x.pdf")
    assert re.fullmatch(r"<session \w+: \d+ slots on 1 node>", repr(ray_session))
