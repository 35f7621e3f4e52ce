"""Graphs in layers, and the boxes of arrays."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidArgumentError
from agentic_ray.graph import Codelet, CostHint, Ref, Task, TaskGraph
from agentic_ray.pictures import Arrow, Box, draw
from agentic_ray.pictures.chunks import chunks_svg


@st.composite
def _graphs(draw_: st.DrawFn) -> tuple[list[Box], list[Arrow]]:
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    for number in range(draw_(st.integers(0, 14))):
        sources = draw_(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
        layer = 1 + max((boxes[source].layer for source in sources), default=-1)
        boxes.append(Box(draw_(st.sampled_from(["load", "a & b", "<sum>"])), layer))
        arrows += [Arrow(source, number) for source in sorted(sources)]
    return boxes, arrows


@given(_graphs())
def test_boxes_of_any_graph_do_not_overlap_and_arrows_go_down(
    graph: tuple[list[Box], list[Arrow]],
) -> None:
    boxes, arrows = graph
    root = ElementTree.fromstring(draw("any", boxes, arrows).svg())
    width, height = (float(part) for part in root.attrib["viewBox"].split()[2:])
    found = []
    for rect in root.findall(".//{*}rect"):
        x, y, w, h = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width + 1
        assert y + h <= height + 1
        found.append((x, y, x + w, y + h))
    assert len(found) == len(boxes)
    for i, (x1, y1, x2, y2) in enumerate(found):
        for u1, v1, u2, v2 in found[:i]:
            assert x2 <= u1 + 0.2 or u2 <= x1 + 0.2 or y2 <= v1 + 0.2 or v2 <= y1 + 0.2
    assert len([path for path in root.findall(".//{*}path") if path.get("stroke")]) == len(arrows)


@pytest.mark.parametrize("arrow", [Arrow(0, 0), Arrow(1, 0), Arrow(0, 2), Arrow(-1, 1)])
def test_arrows_that_cannot_be_drawn_are_refused(arrow: Arrow) -> None:
    with pytest.raises(InvalidArgumentError, match=r"Arrow\("):
        draw("wrong", [Box("a", 0), Box("b", 1)], [arrow])


def _tree(leaves: int) -> TaskGraph:
    load = Codelet("load", cpu=lambda i: i, cost=CostHint(written_bytes=1024))
    add = Codelet("add", cpu=lambda a, b: a + b)
    tasks = [Task.of(load, i, key=f"load/{i}") for i in range(leaves)]
    keys = [task.key for task in tasks]
    while len(keys) > 1:
        pairs = list(zip(keys[::2], keys[1::2], strict=True))
        level = [
            Task.of(add, Ref(a), Ref(b), key=f"{len(pairs)}/{n}") for n, (a, b) in enumerate(pairs)
        ]
        tasks += level
        keys = [task.key for task in level]
    return TaskGraph(tasks, keys)


def _texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).findall(".//{*}text")]


def test_a_small_graph_has_a_box_a_task(tmp_path: Path) -> None:
    graph = _tree(4)
    path = tmp_path / "x.svg"
    texts = _texts(graph.visualize(path).svg())
    assert texts.count("load") == 4
    assert texts.count("add") == 3
    assert texts.count("1 KiB") == 4
    assert path.read_text() == graph._repr_html_()
    page = graph.visualize(tmp_path / "x.html")
    assert page.html() == (tmp_path / "x.html").read_text()


def test_alike_tasks_of_a_large_graph_are_one_box_with_their_number() -> None:
    graph = _tree(1024)
    texts = _texts(graph.visualize().svg())
    assert "load × 1,024" in texts
    assert "add × 512" in texts
    assert "add" in texts
    assert "1 MiB" in texts
    assert len([text for text in texts if text.startswith(("load", "add"))]) == 11
    assert len(_texts(_tree(4).visualize(most=0).svg())) < len(_texts(_tree(4).visualize().svg()))


def test_a_graph_that_is_too_large_says_so() -> None:
    step = Codelet("step", cpu=lambda x: x)
    tasks = [Task.of(step, 0, key="0")]
    tasks += [Task.of(step, Ref(str(i)), key=str(i + 1)) for i in range(300)]
    graph = TaskGraph(tasks, ["300"])
    with pytest.raises(InvalidArgumentError, match="301 stages, where 200 are drawn"):
        graph.visualize()
    assert "301 stages" in graph._repr_html_()


@pytest.mark.parametrize("most", [-1, 1.5, True, "all"])
def test_a_number_of_boxes_that_is_none_is_refused(most: object) -> None:
    with pytest.raises(InvalidArgumentError, match="most is a number of boxes"):
        _tree(2).visualize(most=most)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=60), min_size=1, max_size=5))
def test_chunks_of_any_array_are_drawn_inside_the_picture(chunks: list[list[int]]) -> None:
    root = ElementTree.fromstring(chunks_svg(chunks))
    left, top, width, height = (float(part) for part in root.attrib["viewBox"].split())
    for line in root.findall(".//{*}line"):
        for x, y in (("x1", "y1"), ("x2", "y2")):
            assert left <= float(line.attrib[x]) <= left + width
            assert top <= float(line.attrib[y]) <= top + height
    faces = 1 if len(chunks) < 3 else 3
    assert len(root.findall(".//{*}polygon")) == faces
    lengths = [f"{sum(axis):,}" for axis in chunks[-3:]]
    assert set(lengths) <= {text.text for text in root.findall(".//{*}text")}


def test_arrays_without_elements_are_not_drawn() -> None:
    assert chunks_svg([]) == ""
    assert chunks_svg([(0,), (3,)]) == ""
