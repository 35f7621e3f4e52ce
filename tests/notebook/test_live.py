"""Live views: they end with what they show, and keep what they showed last."""

from __future__ import annotations

import operator
import threading
from typing import Any

import pytest

import agentic_ray as ar
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError
from agentic_ray.notebook import live
from agentic_ray.notebook.live import job_view


class _Thing:
    """Something whose state a test sets."""

    def __init__(self) -> None:
        self.state = "running"
        self.drawn = 0
        self.changed = threading.Condition()

    def _shown(self) -> Any:
        return self

    def _repr_html_(self) -> str:
        with self.changed:
            self.drawn += 1
            self.changed.notify_all()
            return f"<b>{self.state} {self.drawn}</b>"


def test_a_view_is_drawn_anew_until_its_job_has_ended() -> None:
    thing = _Thing()
    view = live(thing, every=0.01)
    with thing.changed:
        assert thing.changed.wait_for(lambda: thing.drawn > 3, 60)
    thing.state = "succeeded"
    view.wait()
    assert view.html == f"<b>succeeded {thing.drawn}</b>"


def test_a_view_ends_when_its_time_is_over_or_it_is_closed() -> None:
    thing = _Thing()
    view = live(thing, seconds=0.05, every=0.01)
    view.wait()
    assert thing.state == "running"
    view = live(thing, seconds=1000.0, every=500.0)
    view.close()
    assert not view._thread.is_alive()


def test_what_cannot_be_drawn_is_told_in_its_place() -> None:
    def broken() -> None:
        raise KeyError("<nothing>")

    view = live(broken, seconds=0.01, every=0.01)
    view.wait()
    assert view.html == "<pre>KeyError: &#x27;&lt;nothing&gt;&#x27;</pre>"


def test_a_job_of_the_cluster_is_shown_with_its_bundles(ray_session: ar.Session) -> None:
    job = ar.map_reduce_job(abs, range(-100, 100), operator.add)
    view = live(job)
    assert job.result() == sum(map(abs, range(-100, 100)))
    view.wait()
    assert "succeeded" in view.html
    assert "<svg" in view.html
    assert "E " in view.html
    cluster = live(seconds=0.01)
    cluster.wait()
    assert ray_session.cluster().nodes[0].node_id[:12] in cluster.html


def test_the_button_of_the_widget_cancels() -> None:
    pytest.importorskip("anywidget")
    cancelled = threading.Event()
    view = job_view("<b>running</b>", cancelled.set)
    assert view.html == "<b>running</b>"
    view._handle_custom_msg({"kind": "other"}, [])
    view._handle_custom_msg("cancel", [])
    assert not cancelled.is_set()
    view._handle_custom_msg({"kind": "cancel"}, [])
    assert cancelled.wait(60)


@pytest.mark.parametrize("given", [{"seconds": 0}, {"every": -1.0}, {"seconds": float("inf")}])
def test_times_that_are_none_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(InvalidArgumentError, match="must be a positive number"):
        live(_Thing(), **given)


def test_what_has_nothing_to_show_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match="a int has nothing to show"):
        live(3)
