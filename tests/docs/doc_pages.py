"""The pages of the documentation, and how their blocks are run: see `Runner`.

A block is a fence with a language. ``python`` and ``sh`` are run, in the order of the page;
``output`` is what the block before it must have printed. ``json`` and ``yaml`` must parse;
``text`` is a picture.
A block that cannot run here has ``<!-- skip: next "reason" -->`` before it.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import SkipTest

import psutil
import yaml
from sybil import Document, Example
from sybil.evaluators.python import PythonEvaluator
from sybil.evaluators.skip import Skipper
from sybil.parsers.markdown import CodeBlockParser, SkipParser
from sybil.parsers.markdown.lexers import FencedCodeBlockLexer

from tests.support.ports import free_ports

ROOT = Path(__file__).parents[2]
RUN_ELSEWHERE = {
    "README.zh.md": "its blocks are those of README.md, as another test sees to",
    "docs/clusters.md": "its lines need several machines: the tests of ray up make them",
    "docs/containers.md": "its lines need a container engine or Kubernetes: tests of deploy/",
}
"""Pages whose blocks other tests run."""
LANGUAGES = ("python", "sh", "output", "json", "yaml", "text")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_BLOCK_SECONDS = 240
_USUAL_PORTS = ("8080", "8265", "6379", "10001")
_MARK = "AGENTIC_RAY_DOCS_MARK"  # every process that a shell line starts inherits it
_COPIED = (
    *("agentic_ray", "benchmarks", "docs", "examples", "tests", ".ci"),
    *("CHANGELOG.md", "LICENSE", "Makefile", "README.md", "pyproject.toml"),
)


def pages() -> list[str]:
    """The Markdown files with blocks that this package's tests run, as paths in the repository."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    names = sorted(str(path.relative_to(ROOT)) for path in found)
    return [name for name in names if name != "CHANGELOG.md" and name not in RUN_ELSEWHERE]


def blocks(page: str) -> list[tuple[int, str, str]]:
    """Line, language and source of each fence of a page."""
    text = (ROOT / page).read_text()
    document = Document(text, str(ROOT / page))
    return [
        (
            text.count("\n", 0, region.start) + 1,
            region.lexemes["language"],
            region.lexemes["source"],
        )
        for region in FencedCodeBlockLexer(".*")(document)
    ]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A block that is not run, and why."""

    page: str
    line: int
    reason: str


def skipped(page: str) -> list[Skipped]:
    """The blocks of a page that say why they are not run."""
    pattern = re.compile(r'^ *<!-- skip: next "([^"]*)" -->$')
    lines = (ROOT / page).read_text().splitlines()
    marks = [(number, pattern.match(line)) for number, line in enumerate(lines, 1)]
    return [Skipped(page, number, mark[1]) for number, mark in marks if mark]


class BlockError(AssertionError):
    """A block of a page does not do what the page says."""


class Runner:
    """Runs one page's blocks, Python in this process and shell lines in one bash.

    Both work in a folder that is empty, or with ``checkout=True`` holds a copy of the checkout. The
    shell has ``environment`` in addition.
    """

    def __init__(
        self,
        page: str,
        folder: Path,
        *,
        checkout: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._page = page
        self._environment = environment or {}
        self._folder = folder
        self._work = folder / "work"
        if checkout:
            copy_checkout(self._work)
        else:
            self._work.mkdir()
        self._shell: Shell | None = None
        self._printed = ""
        self._execute = PythonEvaluator()

    def run(self) -> int:
        """Run the page; gives how many blocks ran.

        Raises
        ------
        BlockError
            A block failed, or printed something else than the page says.
        """
        ways = {
            "python": self._python,
            "sh": self._sh,
            "output": self._output,
            "json": self._json,
            "yaml": self._yaml,
            "text": lambda example: None,
        }
        assert tuple(ways) == LANGUAGES
        parsers = [CodeBlockParser(language, way) for language, way in ways.items()]
        document = Document.parse(str(ROOT / self._page), SkipParser(), *parsers)
        document.namespace["__name__"] = "__main__"  # so functions are pickled by value
        count = 0
        home = Path.cwd()
        os.chdir(self._work)
        try:
            for example in document.examples():
                with contextlib.suppress(SkipTest):
                    example.evaluate()
                    count += not isinstance(example.region.evaluator, Skipper)
        finally:
            os.chdir(home)
            if self._shell is not None:
                self._shell.close()
        return count

    def _python(self, example: Example) -> None:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if example.parsed.lstrip().startswith(">>>"):
                self._doctest(example)
            else:
                self._execute(example)
        self._printed = printed.getvalue()

    def _doctest(self, example: Example) -> None:
        test = doctest.DocTestParser().get_doctest(
            example.parsed, {}, self._page, self._page, example.line
        )
        test.globs = example.namespace
        told: list[str] = []
        runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
        if runner.run(test, out=told.append, clear_globs=False).failed:
            raise BlockError("".join(told))

    def _sh(self, example: Example) -> None:
        if self._shell is None:
            self._shell = Shell(self._work, self._folder, self._environment)
        self._printed = self._shell.run(example.parsed, f"{self._page}:{example.line}")

    def _output(self, example: Example) -> None:
        if not matches(example.parsed, self._printed):
            raise BlockError(
                f"{self._page}:{example.line} says\n{example.parsed}\nbut it was\n{self._printed}"
            )

    def _json(self, example: Example) -> None:
        json.loads(example.parsed)

    def _yaml(self, example: Example) -> None:
        list(yaml.safe_load_all(example.parsed))


def matches(wanted: str, printed: str) -> bool:
    """Whether ``printed`` is what a page shows.

    A line ``...`` stands for any lines, also for none; within a line ``...`` is any text. How much
    white space there is counts for nothing.
    """
    parts = []
    for line in wanted.strip().splitlines():
        if line.strip() == "...":
            parts.append(r"(?:[^\n]*\n)*?")
        else:
            words = [re.escape(word).replace(r"\.\.\.", "[^\n]*?") for word in line.split()]
            parts.append(r"[^\S\n]*" + r"[^\S\n]+".join(words) + r"[^\S\n]*\n")
    return re.fullmatch("".join(parts), printed.strip("\n") + "\n") is not None


class Shell:
    """One bash for all shell lines of a page; the first line that fails ends it.

    It has the programs of this environment, a home of its own, and no network: pip takes this
    environment's packages instead of fetching them. The usual ports are replaced by free ones.
    """

    def __init__(
        self, work: Path, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = folder / "shell.log"
        self._done = folder / "shell.done"
        self._script = folder / "block.sh"
        self._ports = dict(zip(_USUAL_PORTS, map(str, free_ports(len(_USUAL_PORTS))), strict=True))
        self._mark = uuid.uuid4().hex
        # Short, because Ray's sockets have long names inside and the limit is 107 characters.
        self._scratch = tempfile.mkdtemp(prefix="doc", dir="/tmp")
        self._log.touch()
        with self._log.open("ab") as log:
            self._bash = subprocess.Popen(
                ["bash", "--noprofile", "--norc"],
                cwd=work,
                env={
                    **_environment(folder),
                    _MARK: self._mark,
                    "RAY_TMPDIR": self._scratch,
                    # Where commands look that are told of no port.
                    "AGENTIC_RAY_URL": f"http://127.0.0.1:{self._ports['8080']}",
                    **(environment or {}),
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )

    def run(self, lines: str, where: str) -> str:
        """Run the lines; gives what they printed, on both streams."""
        before = self._log.stat().st_size
        self._done.unlink(missing_ok=True)
        for usual, free in self._ports.items():
            lines = lines.replace(usual, free)
        self._script.write_text(f"set -e -o pipefail\n{lines}\n")
        assert self._bash.stdin is not None
        self._bash.stdin.write(f". '{self._script}'; touch '{self._done}'\n")
        self._bash.stdin.flush()
        deadline = time.monotonic() + _BLOCK_SECONDS
        while not self._done.exists():
            if self._bash.poll() is not None or time.monotonic() > deadline:
                ended = "took too long" if self._bash.poll() is None else "failed"
                raise BlockError(f"{where} {ended}:\n{self._text(before)[-4000:]}")
            time.sleep(0.02)
        return self._text(before)

    def close(self) -> None:
        """End the bash and what it still runs in the background."""
        running = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        self._bash.kill()
        self._bash.wait()
        for process in psutil.wait_procs(running, timeout=10)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        """Whether a shell line started it, be it long ago and in the background."""
        try:
            return process.environ().get(_MARK) == self._mark
        except psutil.Error:
            return False

    def _text(self, start: int) -> str:
        with self._log.open("rb") as log:
            log.seek(start)
            text = log.read().decode(errors="replace")
        for usual, free in self._ports.items():
            text = text.replace(free, usual)
        return text


def _environment(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir()
    venv = folder / "installed"
    venv.mkdir()
    (venv / ".installed").touch()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "AGENTIC_RAY_"))}
    for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV", "PYTHONHOME"):
        kept.pop(name, None)
    return {
        **kept,
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "AGENTIC_RAY_KEEP_COSTS": "0",
        "NO_MKDOCS_2_WARNING": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # which turns the isolation off
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "VENV": str(venv),  # for make: an environment that needs no more installing
    }


def copy_checkout(folder: Path) -> None:
    """Make ``folder``, with what the repository has and a reader needs."""
    folder.mkdir()
    for name in _COPIED:
        source, target = ROOT / name, folder / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(source, target)
