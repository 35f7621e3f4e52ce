"""Wheels made from what is installed in this environment: `pip install` without a network.

A distribution that was installed from a wheel still has all that the wheel had: its files, and
its metadata with the tags. Scripts of the old-fashioned kind are left out; console scripts are
made by pip from the metadata.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def needed(requirements: Iterable[str]) -> list[metadata.Distribution]:
    """The installed distributions that ``requirements`` need, with those that these need."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if (name, frozenset(wanted.extras)) in seen:
            continue
        seen.add((name, frozenset(wanted.extras)))
        found[name] = metadata.distribution(name)
        for text in found[name].requires or []:
            each = Requirement(text)
            settings = [{"extra": extra} for extra in ("", *wanted.extras)]
            if each.marker is None or any(each.marker.evaluate(one) for one in settings):
                waiting.append(each)
    return list(found.values())


def make(folder: Path, distributions: Iterable[metadata.Distribution]) -> None:
    """Write one wheel for each of ``distributions`` into ``folder``."""
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda each: _pack(folder, each), distributions):
            pass


def _pack(folder: Path, distribution: metadata.Distribution) -> None:
    tags = [
        line.removeprefix("Tag: ")
        for line in (distribution.read_text("WHEEL") or "").splitlines()
        if line.startswith("Tag: ")
    ]
    pythons, abis, platforms = zip(*(tag.split("-") for tag in tags), strict=True)
    tag = "-".join(".".join(dict.fromkeys(part)) for part in (pythons, abis, platforms))
    name = canonicalize_name(distribution.name).replace("-", "_")
    path = folder / f"{name}-{distribution.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        for file in distribution.files or []:
            outside = file.parts[0] == ".." or file.is_absolute()
            source = Path(str(distribution.locate_file(file)))
            if outside or "__pycache__" in file.parts or not source.is_file():
                continue
            if file.parent.suffix == ".dist-info" and file.name in _OF_THE_INSTALLATION:
                continue
            wheel.write(source, str(file))


_OF_THE_INSTALLATION = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def plant(environment: Path, distributions: Iterable[metadata.Distribution]) -> None:
    """Put ``distributions`` into the virtual environment in ``environment``, as links to the files
    here: what a machine has that was set up before, in a second."""
    (libraries,) = environment.glob("lib/python*/site-packages")
    for distribution in distributions:
        for file in distribution.files or []:
            source = Path(str(distribution.locate_file(file)))
            if file.parts[0] == ".." or file.is_absolute() or not source.is_file():
                continue
            target = libraries / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                target.hardlink_to(source)
            except FileExistsError:
                continue  # a namespace that two distributions share, or pip's own
            except OSError:  # another file system
                shutil.copy2(source, target)
        for entry in distribution.entry_points.select(group="console_scripts"):
            script = environment / "bin" / entry.name
            script.write_text(
                f"#!{environment}/bin/python\nimport sys\nfrom {entry.module} import {entry.attr}\n"
                f"sys.exit({entry.attr}())\n"
            )
            script.chmod(0o755)
