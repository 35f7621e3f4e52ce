"""Fixtures of the tests of the master: a real PostgreSQL server, and journals in it."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .postgres_server import Server, programs

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A fresh server; skipped where that cannot be started."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    folder = programs()
    if folder is None:
        pytest.skip("no PostgreSQL server (initdb, pg_ctl) on this machine")
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        try:
            server = Server(folder, Path(name))
        except OSError as error:
            pytest.skip(str(error))
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def new_database(postgres: Server) -> Callable[[], str]:
    """Makes an empty database; its URL."""
    import psycopg

    def make() -> str:
        name = f"journal{next(_numbers)}"
        with psycopg.connect(postgres.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return postgres.url(name)

    return make


@pytest.fixture(params=["sqlite", "postgresql"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes a place for a new journal, a file and a database in turn of the parameter."""
    if request.param == "postgresql":
        made: Callable[[], str] = request.getfixturevalue("new_database")
        return made
    return lambda: str(tmp_path / f"journal{next(_numbers)}.sqlite3")
