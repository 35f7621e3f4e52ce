"""MkDocs calls these functions: they add pages made from the code and from files beside docs/."""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parent))  # MkDocs loads this file without its folder
import array_pages
import code_pages

ROOT = Path(__file__).parents[2]
BESIDE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "benchmarks/RESULTS.md": "project/results.md",
}
"""Files of the repository that are pages of the site, and where they are there."""
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    _section(config.nav, "Arrays", "Reference").extend(
        {title: uri} for uri, title in array_pages.titles().items()
    )
    _section(config.nav, "Decisions").extend(
        f"adr/{path.name}" for path in sorted((Path(config.docs_dir) / "adr").glob("[0-9]*.md"))
    )
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, uri in BESIDE.items():
        files.append(File.generated(config, uri, content=(ROOT / name).read_text()))
    for uri, content in {**array_pages.pages(), **code_pages.pages()}.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links that are right in the repository right in the site.

    A link to a file that has no page, such as `cluster.yaml`, becomes its text.
    """
    origin = {uri: name for name, uri in BESIDE.items()}
    here = page.file.src_uri
    folder = posixpath.dirname(origin.get(here, f"docs/{here}"))

    def relink(found: re.Match[str]) -> str:
        text, link, place = found[1], found[2], found[3] or ""
        target = posixpath.normpath(posixpath.join(folder, link))
        if target not in BESIDE and not target.startswith("docs/"):
            return text if (ROOT / target).exists() else found[0]
        inside = BESIDE.get(target, target.removeprefix("docs/"))
        return f"[{text}]({posixpath.relpath(inside, posixpath.dirname(here) or '.')}{place})"

    return _LINK.sub(relink, markdown)


def _section(nav: Any, *titles: str) -> list[Any]:
    """The list of entries of the section with the first title, in the section of the second."""
    *outer, title = reversed(titles)
    for one in outer:
        nav = _section(nav, one)
    for entry in nav:
        if isinstance(entry, dict) and isinstance(entry.get(title), list):
            found: list[Any] = entry[title]
            return found
    raise LookupError(f"the navigation has no section {title!r}")
