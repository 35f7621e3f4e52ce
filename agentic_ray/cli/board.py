"""The screen of ``agentic-ray top``: nodes with their GPUs, and jobs that can be looked at.

Needs Textual, the extra ``agentic-ray[top]``. Every answer of the service is fetched by a thread,
so that keys are taken at once however slow the service is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.css.query import NoMatches
from textual.events import Key
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Static

from agentic_ray.cli.rows import COLUMNS, WIDTHS, JobRow, head_line, job_rows, node_rows
from agentic_ray.errors import AgenticRayError

_MOST_LOG_LINES = 1_000


class Source(Protocol):
    """Where the facts come from: a service."""

    def cluster(self) -> dict[str, Any]: ...
    def jobs(self) -> list[dict[str, Any]]: ...
    def cancel(self, task_id: str) -> dict[str, Any]: ...
    def logs(self, task_id: str) -> list[str]: ...


@dataclass(frozen=True, slots=True)
class Facts:
    """The answers of a service at one moment."""

    cluster: dict[str, Any]
    jobs: list[dict[str, Any]]


class Told(Message):
    """Message of a thread to the screen: have it take in an answer. (Messages, unlike calls, do not
    make the thread wait, which would be for ever once the screen is closed.)"""

    def __init__(self, take: Callable[[], None]) -> None:
        super().__init__()
        self.take = take


class LogScreen(ModalScreen[None]):
    """The lines that a job has printed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,l", "dismiss", "Back"),
    ]
    CSS = "LogScreen VerticalScroll { border: round $accent; background: $surface; }"

    def __init__(self, task_id: str, lines: Sequence[str]) -> None:
        super().__init__()
        self._task_id = task_id
        self._lines = lines[-_MOST_LOG_LINES:]

    def compose(self) -> ComposeResult:
        text = "\n".join(self._lines) or "it has printed nothing"
        with VerticalScroll() as box:
            box.border_title = f"log of {self._task_id}: Esc goes back"
            yield Static(text, markup=False, id="log")

    def on_mount(self) -> None:
        self.query_one(VerticalScroll).scroll_end(animate=False)


class Question(ModalScreen[bool]):
    """A question that y answers with yes, and any other key with no."""

    CSS = "Question Static { dock: bottom; background: $error; color: $text; padding: 0 1; }"

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        yield Static(f"{self._text} [y/n]", markup=False)

    def on_key(self, event: Key) -> None:
        event.stop()
        self.dismiss(event.key == "y")


class Board(App[None]):
    """The screen.

    Parameters
    ----------
    source : Source
    name : str
        Name of the service in the first line.
    every : float
        Seconds between two looks at the service.
    """

    TITLE = "agentic-ray top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 1; background: $primary; color: $text; }
    #nodes { height: auto; max-height: 40%; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #filter.open { display: block; }
    #jobs { height: 1fr; }
    DataTable { scrollbar-size-vertical: 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("s", "sort", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("c", "cancel", "Cancel"),
        Binding("l", "logs", "Logs"),
        Binding("escape", "all", "All", show=False),
    ]

    def __init__(self, source: Source, name: str, every: float = 1.0) -> None:
        super().__init__()
        self._source = source
        self._service = name
        self._every = every
        self._facts = Facts({"nodes": []}, [])
        self._rows: list[JobRow] = []
        self._sorted_by = "submitted"
        self._is_reversed = True
        self._words = ""
        self._trouble = ""

    def compose(self) -> ComposeResult:
        yield Static("", markup=False, id="head")
        yield DataTable(id="nodes", cursor_type="none", zebra_stripes=True)
        yield Input(placeholder="state, workload, user or id", id="filter")
        yield DataTable(id="jobs", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        nodes = self.query_one("#nodes", DataTable)
        nodes.add_columns("node", "processors", "memory", "state")
        self.query_one("#jobs", DataTable).focus()
        self._look()
        self.set_interval(self._every, self._look)

    # --- looking at the service ------------------------------------------------------------

    def _look(self) -> None:
        """Ask the service for jobs and nodes in a thread, unless the last request still runs."""
        if not any(worker.group == "look" and worker.is_running for worker in self.workers):
            self.run_worker(self._fetch, thread=True, group="look")

    def _fetch(self) -> None:
        try:
            found = Facts(self._source.cluster(), self._source.jobs())
        except AgenticRayError as error:
            self._tell(self._failed, str(error))
        else:
            self._tell(self._take, found)

    def _tell(self, take: Callable[[Any], None], answer: Any) -> None:
        """Have the screen's own thread take in an answer."""
        self.post_message(Told(lambda: take(answer)))

    def on_told(self, message: Told) -> None:
        try:
            message.take()
        except NoMatches:
            if self.query("#head") and self.query("#jobs"):
                raise
            # else the screen is being taken down

    def _take(self, facts: Facts) -> None:
        self._facts, self._trouble = facts, ""
        self._draw()

    def _failed(self, text: str) -> None:
        self._trouble = text
        self._draw()

    def _ask(self, request: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Make a request in a thread; give its answer to ``then``, or show why there is none."""

        def work() -> None:
            try:
                answer = request()
            except AgenticRayError as error:
                self._tell(self._failed, str(error))
            else:
                self._tell(then, answer)

        self.run_worker(work, thread=True, group="ask")

    # --- drawing ---------------------------------------------------------------------------

    def _draw(self) -> None:
        head = self._trouble or head_line(self._service, self._facts.cluster, self._facts.jobs)
        self.query_one("#head", Static).update(head)
        nodes = self.query_one("#nodes", DataTable)
        nodes.clear()
        nodes.add_rows(node_rows(self._facts.cluster))
        self._draw_jobs()

    def _draw_jobs(self) -> None:
        table = self.query_one("#jobs", DataTable)
        chosen = self._chosen()
        self._rows = job_rows(self._facts.jobs, self._sorted_by, self._is_reversed, self._words)
        table.clear(columns=True)
        arrow = "▼" if self._is_reversed else "▲"
        for name in COLUMNS:
            label = f"{name} {arrow}" if name == self._sorted_by else name
            table.add_column(label, key=name, width=WIDTHS[name])
        for row in self._rows:
            table.add_row(*row.cells, key=row.task_id)
        ids = [row.task_id for row in self._rows]
        if chosen in ids:
            table.move_cursor(row=ids.index(chosen))

    def _chosen(self) -> str | None:
        """Return the id of the job under the cursor."""
        at = self.query_one("#jobs", DataTable).cursor_row
        return self._rows[at].task_id if 0 <= at < len(self._rows) else None

    # --- keys ------------------------------------------------------------------------------

    def action_sort(self) -> None:
        """Sort the jobs by the next column."""
        names = list(COLUMNS)
        self._sorted_by = names[(names.index(self._sorted_by) + 1) % len(names)]
        self._draw_jobs()

    def action_reverse(self) -> None:
        self._is_reversed = not self._is_reversed
        self._draw_jobs()

    def action_filter(self) -> None:
        """Open the line in which words are typed that a job must have."""
        line = self.query_one("#filter", Input)
        line.add_class("open")
        line.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._words = event.value
        self._draw_jobs()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.query_one("#jobs", DataTable).focus()

    def action_all(self) -> None:
        """Show all jobs again."""
        line = self.query_one("#filter", Input)
        line.value = ""
        line.remove_class("open")
        self.query_one("#jobs", DataTable).focus()

    def action_cancel(self) -> None:
        """Cancel the job under the cursor, if the user says yes."""
        chosen = self._chosen()
        if chosen is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self._ask(lambda: self._source.cancel(chosen), lambda _: self._look())

        self.push_screen(Question(f"Cancel job {chosen}?"), answered)

    def action_logs(self) -> None:
        """Show what the job under the cursor has printed."""
        chosen = self._chosen()
        if chosen is not None:

            def show(lines: list[str]) -> None:
                self.push_screen(LogScreen(chosen, lines))

            self._ask(lambda: self._source.logs(chosen), show)
