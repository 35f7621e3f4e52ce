"""Chromium, as tests and pictures of the page drive it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str | None:
    """The program, if there is one."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


def launch(playwright: Any) -> Any:
    """A headless Chromium without what it would ask the network for."""
    return playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))


def violations(page: Any, exclude: Sequence[str] = ()) -> list[str]:
    """What axe-core finds wrong with the page as it is, one line each."""
    import axe_playwright_python

    script = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text("utf-8")
    # (By the debugger: the page's own policy lets no script in.)
    page.evaluate(f"() => {{ {script} }}")
    found = page.evaluate("exclude => axe.run({ exclude })", [[one] for one in exclude])
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:160]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
