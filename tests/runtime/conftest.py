"""Programs of their own, for what would disturb the session that the tests share."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.programs import Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    """Make a Program of some source; what it leaves running is ended after the test."""
    made: list[Program] = []

    def make(source: str) -> Program:
        path = tmp_path / f"program{len(made)}.py"
        path.write_text(textwrap.dedent(source))
        made.append(Program(path))
        return made[-1]

    yield make
    for one in made:
        one.end()
