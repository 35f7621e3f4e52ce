"""Every code block and shell line of README and the pages does what the page says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from doc_pages import LANGUAGES, Runner, blocks, pages, skipped

from tests.support.programs import without_ray_settings

IN_A_CHECKOUT = {"README.md", "CONTRIBUTING.md", "docs/start.md"}
"""Their reader sits in the folder of the repository."""
NOT_RUN = {
    "CONTRIBUTING.md": 4,
    "docs/functions.md": 1,
    "docs/gpu.md": 1,
    "docs/howto/nodes.md": 2,
    "docs/howto/share.md": 1,
    "docs/tables.md": 1,
    "docs/training.md": 1,
    "docs/tutorials/cluster-job.md": 1,
    "docs/tutorials/gpus.md": 1,
}
"""How many blocks of a page are not run here; the page says why."""

WITH_BLOCKS = [
    page for page in pages() if any(kind in ("python", "sh") for _, kind, _ in blocks(page))
]


ON_ONE_RAY = {
    "docs/howto/what-if.md",
    "docs/operations/backup.md",
    "docs/operations/security.md",
    "docs/reference/http.md",
    "docs/tutorials/service.md",
}
"""Pages whose shell lines join one Ray; those of the others start an embedded one each."""

LONG = {"docs/tutorials/cluster-job.md"}
"""Pages that start a cluster by `ray start`, which gives up on a busy machine."""


START = """
import sys, ray
from agentic_ray.runtime.embedded import init_embedded
init_embedded(num_cpus=2, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def joining() -> Iterator[dict[str, str]]:
    """The environment of shell lines that join one Ray."""
    no_token = {"RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**without_ray_settings(), **no_token},
    ) as head:
        assert head.stdin is not None
        assert head.stdout is not None
        yield {**no_token, "RAY_ADDRESS": head.stdout.readline().strip()}
        head.stdin.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_the_blocks_of_a_page_run(
    page: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if page in LONG and "AGENTIC_RAY_LONG" not in os.environ:
        pytest.skip("set AGENTIC_RAY_LONG=1")
    if any(kind == "python" for _, kind, _ in blocks(page)):
        request.getfixturevalue("ray_session")
    joined = request.getfixturevalue("joining") if page in ON_ONE_RAY else None
    ran = Runner(page, tmp_path, checkout=page in IN_A_CHECKOUT, environment=joined).run()
    assert ran + len(skipped(page)) == len(blocks(page))


@pytest.mark.parametrize("page", pages())
def test_each_block_has_a_language_that_says_whether_it_is_run(page: str) -> None:
    assert [block for block in blocks(page) if block[1] not in LANGUAGES] == []


def test_what_is_not_run_is_counted_and_has_a_reason() -> None:
    marks = [mark for page in pages() for mark in skipped(page)]
    for mark in marks:
        print(f"{mark.page}:{mark.line} is not run: {mark.reason}")
        assert len(mark.reason.split()) >= 3, mark
    counts = {page: sum(mark.page == page for mark in marks) for page in pages()}
    assert {page: count for page, count in counts.items() if count} == NOT_RUN
