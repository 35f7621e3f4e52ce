"""The examples run by themselves and as Ray jobs, and give right answers."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def output_of(example: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / f"{example}.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_word_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("The cat isn't the dog.\n" * 1000)
    (tmp_path / "b.txt").write_text("THE\nCat")
    lines = output_of("word_count", str(tmp_path), "--top", "2").splitlines()
    assert lines[0] == "5,002 words, 4 of them different"
    assert [line.split() for line in lines[1:]] == [["2,001", "the"], ["1,001", "cat"]]


def test_option_price_is_near_the_closed_formula() -> None:
    text = output_of("option_price", "--paths", "2000000")
    assert text.startswith("2,097,152 paths: ")
    found = re.search(r"Black-Scholes: 7\.12806, ([0-9.]+) standard errors away", text)
    assert found
    assert float(found[1]) < 4


def test_cross_validation_finds_the_shape(tmp_path: Path) -> None:
    rows = "".join(f"{x},{3 * x * x - x}\n" for x in range(-50, 51))
    (tmp_path / "points.csv").write_text("speed,distance\n" + rows)
    lines = output_of(
        "cross_validation",
        *("--csv", str(tmp_path / "points.csv"), "--x", "speed", "--y", "distance"),
        *("--degrees", "1", "2", "--strengths", "1e-9", "10", "--folds", "5"),
    ).splitlines()
    assert lines[0].startswith("20 fits; the five best of 4 combinations")
    assert lines[1].split()[:4] == ["degree", "2", "strength", "1e-09"]


@pytest.mark.parametrize(
    ("example", "arguments", "said"),
    [
        ("weather_ensemble", ("--megabytes", "12"), "checked: means at most"),
        ("kmer_counts", ("--megabytes", "1"), "checked: ACGTTGCA was planted 990 times"),
        ("value_at_risk", ("--scenarios", "60000"), "checked: "),
        ("fraud_scoring", ("--minutes", "3"), "checked: all 15 stolen cards, and no other"),
        (
            "sensor_stream",
            ("--minutes", "14"),
            "checked: the windows of the whole table; 4 sensors",
        ),
    ],
)
def test_examples_check_themselves(example: str, arguments: tuple[str, ...], said: str) -> None:
    assert said in output_of(example, *arguments).splitlines()[-1]


@pytest.mark.parametrize(
    "example",
    ["weather_ensemble", "kmer_counts", "value_at_risk", "fraud_scoring", "sensor_stream"],
)
def test_examples_say_how_they_are_called(
    example: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [example, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "examples" / f"{example}.py"), run_name="__main__")
    assert ended.value.code == 0
    assert "--seed" in capsys.readouterr().out
