"""Follows a script and notes which of its lines sends which graph: planned only, or really run."""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

from agentic_ray.cli.scripts import show
from agentic_ray.errors import NothingRanError
from agentic_ray.watching import Watch, watching

if TYPE_CHECKING:
    from agentic_ray.pictures import Span
    from agentic_ray.runtime.planning import PlanningSession
    from agentic_ray.runtime.run import Run


@dataclass(frozen=True, slots=True)
class Stop:
    """The line at which following a script ends, because the line needs a value of real data."""

    line: int
    source: str
    needs: str


@dataclass(slots=True, eq=False)
class LineWatch(Watch):
    """A watch that notes the line of the script that each graph comes from; 0: not known."""

    file: str = ""
    lines: dict[str, int] = field(default_factory=dict)
    here_lines: list[int] = field(default_factory=list)

    def sees(self, run: Run) -> None:
        self.lines[run.graph_id] = self._line()

    def sees_here(self, span: Span) -> None:
        self.here.append(span)
        self.here_lines.append(self._line())

    def _line(self) -> int:
        """Return the line of the script that is under way; in other threads the one at which the
        main thread is."""
        main = threading.main_thread().ident
        frames = [sys._getframe(), sys._current_frames().get(-1 if main is None else main)]
        for frame in frames:
            while frame is not None:
                if frame.f_code.co_filename == self.file:
                    return frame.f_lineno
                frame = frame.f_back
        return 0


@dataclass(slots=True)
class Followed:
    """A script that was followed. ``failed``: it ended with an error, which was shown."""

    watch: LineWatch
    stop: Stop | None = None
    failed: bool = False


def follow(file: Path, code: CodeType, main: ModuleType, session: PlanningSession) -> Followed:
    """Go through a script with a session that runs nothing, until a line needs a value."""
    from agentic_ray.runtime.planning import planning

    with planning(session), _executed(file, code, main) as followed:
        pass
    return followed


def run_recorded(
    file: Path, code: CodeType, main: ModuleType, settings: Mapping[str, Any]
) -> tuple[Followed, str]:
    """Run a script and record its session; return the text of the recording too.

    Parameters
    ----------
    settings : mapping
        Settings of the session, by the names of their variables in the environment.

    Raises
    ------
    NothingRanError
        The script has made no session.
    """
    import agentic_ray as ar

    with TemporaryDirectory() as folder:
        os.environ.update(settings)
        os.environ["AGENTIC_RAY_RECORD"] = folder
        try:
            with _executed(file, code, main) as followed:
                pass
        finally:
            ar.shutdown()
        recordings = sorted(Path(folder).iterdir(), key=lambda path: path.stat().st_size)
        if not recordings:
            raise NothingRanError(f"{file} has sent no work to a session")
        return followed, recordings[-1].read_text(encoding="utf-8")


@contextlib.contextmanager
def _executed(file: Path, code: CodeType, main: ModuleType) -> Iterator[Followed]:
    """Execute a script. What it prints goes to the standard error: the answer is our output."""
    from agentic_ray.unknown import NeedsValue

    watch = LineWatch(file=str(file))
    followed = Followed(watch)
    with watching(watch), contextlib.redirect_stdout(sys.stderr):
        try:
            exec(code, main.__dict__)
        except NeedsValue as error:
            followed.stop = _stop(file, error.__traceback__, str(error))
        except SystemExit as error:
            followed.failed = bool(error.code)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            needed = _needed(error)
            if needed is None:
                followed.failed = True
                show(error)
            else:
                followed.stop = _stop(file, error.__traceback__, needed)
    yield followed


def _needed(error: BaseException | None) -> str | None:
    """Return the value of which the lack led to an error: it could not be pickled."""
    from agentic_ray.unknown import NeedsValue, NotSendable

    while error is not None:
        if isinstance(error, NeedsValue | NotSendable):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def _stop(file: Path, trace: TracebackType | None, needs: str) -> Stop:
    line = 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return Stop(line, source_line(file, line), needs)


def source_line(file: Path, line: int) -> str:
    """Return a line of a script, without the blanks around it."""
    return linecache.getline(str(file), line).strip()
