"""The runner of pages notices what is wrong on a page."""

from __future__ import annotations

from pathlib import Path

import pytest
from doc_pages import BlockError, Runner, matches


def page(tmp_path: Path, *blocks: tuple[str, str]) -> Runner:
    file = tmp_path / "page.md"
    file.write_text("\n".join(f"```{kind}\n{source}\n```\n" for kind, source in blocks))
    return Runner(str(file), tmp_path)


def test_blocks_share_names_variables_and_a_folder(tmp_path: Path) -> None:
    ran = page(
        tmp_path,
        ("python", "x = 1\nopen('made', 'w').write('text')"),
        ("python", ">>> x + 1\n2"),
        ("sh", "name=value"),
        ("sh", 'echo "$name" && cat made'),
        ("output", "value\ntext"),
    ).run()
    assert ran == 5


@pytest.mark.parametrize(
    "blocks",
    [
        [("python", ">>> 1 + 1\n3")],
        [("python", "print(1)"), ("output", "2")],
        [("sh", "echo one"), ("output", "two")],
        [("sh", "false\ntrue")],
        [("sh", "false | cat")],
        [("sh", "no-such-command")],
    ],
)
def test_what_a_page_says_wrongly_is_an_error(
    blocks: list[tuple[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(BlockError):
        page(tmp_path, *blocks).run()


def test_an_exception_of_a_block_is_raised_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        page(tmp_path, ("python", "x = 0\n1 / x")).run()
    assert caught.traceback[-1].lineno == 2  # counted from 0: the third line of the file


def test_a_block_that_is_marked_is_not_run(tmp_path: Path) -> None:
    runner = page(tmp_path, ("python", "1 / 0"), ("python", "print('next')"), ("output", "next"))
    file = tmp_path / "page.md"
    file.write_text('<!-- skip: next "it cannot be run here" -->\n' + file.read_text())
    assert runner.run() == 2


@pytest.mark.parametrize(
    ("wanted", "printed", "same"),
    [
        ("a", "a\n", True),
        ("a", "b\n", False),
        ("a", "a\nb\n", False),
        ("...\na\n...", "a\n", True),
        ("...\na\n...", "1\n2\na\nb\n", True),
        ("...\na\n...", "1\n2\nb\n", False),
        ("took ... s", "took 1.2 s\n", True),
        ("took ... s", "took 1.2 h\n", False),
        ("a  b", "a b\n", True),
        ("a b", "ab\n", False),
        ("[x].", "[x].\n", True),
        ("[x].", "x!\n", False),
    ],
)
def test_printed_text_is_compared(wanted: str, printed: str, same: bool) -> None:
    assert matches(wanted, printed) is same
