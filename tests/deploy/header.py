"""The commands in the comment at the top of a file for `ray up`."""

from __future__ import annotations

from pathlib import Path


def commands(file: Path) -> list[str]:
    """Those of ``file``, each without what explains it."""
    top = file.read_text().split("\ncluster_name")[0].splitlines()
    return [line[4:].split("   #")[0].strip() for line in top if line.startswith("#   ")]
