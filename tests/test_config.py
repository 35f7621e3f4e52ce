"""Settings: arguments, then the environment, then defaults; each value checked."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from agentic_ray.config import Settings, cache_directory
from agentic_ray.errors import InvalidArgumentError, InvalidTypeError


def test_defaults() -> None:
    assert Settings.resolve({}) == Settings()


def test_arguments_go_before_the_environment_and_that_before_defaults() -> None:
    environment = {"AGENTIC_RAY_NUM_CPUS": "3", "AGENTIC_RAY_SHARE": "0.25"}
    found = Settings.resolve(environment, num_cpus=5, address=None)
    assert (found.num_cpus, found.share, found.address) == (5, 0.25, None)
    assert found.poll_seconds == Settings().poll_seconds


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("address", "auto", "auto"),
        ("num_cpus", "2", 2),
        ("object_store_memory_bytes", "100000000", 100_000_000),
        ("idle_release_seconds", "0", 0.0),
        ("poll_seconds", "1e-1", 0.1),
        ("progress", "yes", True),
        ("progress", "FALSE", False),
        ("progress", "0", False),
        ("max_failures", "0", 0),
        ("num_cpus", "", None),
    ],
)
def test_every_setting_can_come_from_the_environment(name: str, text: str, value: Any) -> None:
    assert getattr(Settings.resolve({f"AGENTIC_RAY_{name.upper()}": text}), name) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("num_cpus", "two"),
        ("num_cpus", "0"),
        ("num_cpus", "1.5"),
        ("share", "0"),
        ("share", "1.01"),
        ("share", "nan"),
        ("poll_seconds", "0"),
        ("poll_seconds", "nan"),
        ("idle_release_seconds", "-1"),
        ("max_failures", "-1"),
        ("object_store_memory_bytes", "-5"),
        ("progress", "perhaps"),
    ],
)
def test_unusable_values_are_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=rf"(?i){name}"):
        Settings.resolve({f"AGENTIC_RAY_{name.upper()}": text})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_cpus", "2"),
        ("num_cpus", 1.5),
        ("num_cpus", True),
        ("share", "half"),
        ("address", 6379),
        ("progress", 1),
        ("poll_seconds", "1"),
        ("max_failures", 2.0),
    ],
)
def test_values_of_a_wrong_type_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidTypeError, match=name):
        Settings.resolve({}, **{name: value})


def test_an_int_is_a_number_of_seconds() -> None:
    assert Settings.resolve({}, poll_seconds=2, share=1).poll_seconds == 2


def test_unknown_settings_are_named_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgumentError, match=r"colour.*num_cpus"):
        Settings.resolve({}, colour="red")


def test_the_cache_directory_is_the_users_and_not_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_directory() == tmp_path / "cache" / "agentic_ray"
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "agentic_ray"

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert cache_directory() == Path(tempfile.gettempdir()) / f"agentic_ray-{os.getuid()}"
