"""`live`: a view of a job, or of the cluster, that is drawn anew while the notebook goes on."""

from __future__ import annotations

import html
import importlib
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from agentic_ray.errors import InvalidArgumentError, InvalidTypeError

ENDED: Final = ("succeeded", "failed", "cancelled", "unknown")
"""States in which a job stays."""
_DRAWING_SHARE = 10.0
"""Pauses are at least this many times as long as drawing takes."""
_JOIN_SECONDS = 10.0


def live(thing: Any = None, *, seconds: float = 60.0, every: float = 0.5) -> Live:
    """Show a job, or the cluster, and draw it anew until the job ends, or for ``seconds``.

    What it showed last stays as a picture in the file of the notebook.

    Parameters
    ----------
    thing : job, map-reduce or callable, optional
        What to show: it has a state that ends, or is called for something to show. Default: the
        nodes and GPUs of the cluster.
    seconds : float
        Longest time for which it is drawn anew.
    every : float
        Seconds between two drawings.

    Raises
    ------
    InvalidTypeError
        ``thing`` cannot be shown.
    InvalidArgumentError
        A time is not a positive number.

    Examples
    --------
    >>> from agentic_ray.notebook import live
    >>> import agentic_ray as ar
    >>> view = live(ar.submit("default", {"data": [1, 2]}))
    >>> view.wait()
    >>> "succeeded" in view.html
    True
    """
    for name, value in (("seconds", seconds), ("every", every)):
        if not 0 < value < float("inf"):
            raise InvalidArgumentError(f"{name} must be a positive number, not {value!r}")
    if thing is None:
        from agentic_ray.runtime import cluster  # starts nothing before it is asked for

        thing = cluster
    if not (callable(thing) or hasattr(thing, "_repr_html_")):
        raise InvalidTypeError(f"a {type(thing).__name__} has nothing to show")
    return Live(thing, seconds, every)


class Live:
    """A view that is drawn anew by a thread of its own. Made by `live`.

    In a notebook with anywidget it has a button that cancels the job; without, it is HTML that is
    replaced in place; elsewhere its ``repr`` is that of what it shows.

    Attributes
    ----------
    html : str
        HTML that was shown last.
    """

    def __init__(self, thing: Any, seconds: float, every: float) -> None:
        self._thing = thing
        self._every = every
        self._seconds = seconds
        self._closed = False
        self._wake = threading.Event()
        self._show: Callable[[str, bool], None] = lambda text, running: None
        self.html = self._drawn()
        self._thread = threading.Thread(target=self._go_on, name="agentic-ray-live", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until it is drawn no more."""
        self._thread.join()

    def close(self) -> None:
        """Draw no more; what was shown last stays."""
        self._closed = True
        self._wake.set()
        self._thread.join(_JOIN_SECONDS)

    def _running(self) -> bool:
        shown = getattr(self._thing, "_shown", None)
        return not self._closed and (shown is None or shown().state not in ENDED)

    def _drawn(self) -> str:
        """Return HTML of what is shown; an error that stops it from being drawn is shown instead,
        for the thread has nobody to raise it to."""
        try:
            found = self._thing() if callable(self._thing) else self._thing
            text = found._repr_html_() if hasattr(found, "_repr_html_") else None
            return str(text) if text is not None else f"<pre>{html.escape(repr(found))}</pre>"
        except Exception as error:
            return f"<pre>{html.escape(f'{type(error).__name__}: {error}')}</pre>"

    def _go_on(self) -> None:
        end = time.monotonic() + self._seconds
        pause = self._every
        running = True
        while running:
            self._wake.wait(min(pause, max(0.0, end - time.monotonic())))
            self._wake.clear()
            running = self._running() and time.monotonic() < end
            began = time.monotonic()
            self.html = self._drawn()
            # A job of very many bundles is drawn less often: drawing must not slow it down.
            pause = max(self._every, _DRAWING_SHARE * (time.monotonic() - began))
            self._show(self.html, running)

    def _ipython_display_(self) -> None:
        ipython: Any = importlib.import_module("IPython")
        cancel = getattr(self._thing, "cancel", None)
        made = None if cancel is None else job_view(self.html, cancel)
        if made is None:
            handle = ipython.display.display(self._forms(), raw=True, display_id=True)
        else:
            handle = ipython.display.display(made, display_id=True)

        def show(text: str, running: bool) -> None:
            if made is not None and running:
                made.html = text
            else:  # the last one replaces the widget, of which a file keeps nothing
                handle.update(self._forms(), raw=True)

        self._show = show
        shell = ipython.get_ipython()
        shell.events.register("post_run_cell", self._after_cell)
        if not self._thread.is_alive():
            show(self.html, False)

    def _after_cell(self, result: Any) -> None:
        """Draw a job that has ended for the last time before the cell counts as done: programs
        that run notebooks take in nothing after that."""
        if not self._running():
            self._wake.set()
            self._thread.join(_JOIN_SECONDS)
        if not self._thread.is_alive():
            ipython: Any = importlib.import_module("IPython")
            ipython.get_ipython().events.unregister("post_run_cell", self._after_cell)

    def _forms(self) -> dict[str, str]:
        return {"text/html": self.html, "text/plain": repr(self._thing)}

    def __repr__(self) -> str:
        return f"<live view of {self._thing!r}>"


_SCRIPT = """
function render({ model, el }) {
  const view = document.createElement("div");
  const stop = document.createElement("button");
  stop.textContent = "Cancel";
  stop.addEventListener("click", () => { stop.disabled = true; model.send({ kind: "cancel" }); });
  const draw = () => { view.innerHTML = model.get("html"); };
  model.on("change:html", draw);
  draw();
  el.append(view, stop);
  return () => model.off("change:html", draw);
}
export default { render };
"""


def job_view(text: str, cancel: Callable[[], Any]) -> Any:
    """Return a widget that shows HTML and a button that calls ``cancel``; None without anywidget.

    The call waits until the work has stopped, so it is made in a thread.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:  # the extra agentic-ray[notebook] is not installed
        return None

    class JobView(anywidget.AnyWidget):  # type: ignore[misc]
        _esm = _SCRIPT
        html = traitlets.Unicode("").tag(sync=True)

        def __repr__(self) -> str:
            return "a live view of a job"

    def on_message(_: Any, content: Any, buffers: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == "cancel":
            threading.Thread(target=cancel, daemon=True).start()

    view = JobView(html=text)
    view.on_msg(on_message)
    return view
