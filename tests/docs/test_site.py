"""The site builds without a warning, its links lead somewhere, and each public name is in it."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from doc_pages import ROOT

import agentic_ray as ar
import agentic_ray.array as xp
from agentic_ray import errors, sources, testing

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page refers to, and the places in it that can be referred to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attributes}
        self.ids |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical":
            self.loaded.append(found.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the site, by their files; built strictly."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert "WARNING" not in done.stderr
    return {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}


def test_no_link_inside_the_site_is_dead(site: dict[Path, Page]) -> None:
    assert sum(len(page.links) for page in site.values()) > 1000
    dead = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            place = unquote(parts.fragment)
            known = site[target].ids if target in site else {place}
            if not target.exists() or (place and place not in known):
                dead.append((path.name, link))
    assert dead == []


def test_a_reader_loads_nothing_from_another_host(site: dict[Path, Page]) -> None:
    foreign = {
        source for page in site.values() for source in page.loaded if urlsplit(source).netloc
    }
    assert foreign == set()


def test_each_public_name_is_in_the_reference(site: dict[Path, Page]) -> None:
    there = set().union(*(page.ids for page in site.values()))
    assert sorted(set(_public_names()) - there) == []


def _public_names() -> Iterator[str]:
    """Every public name of the package with its module, as the reference names it."""
    modules = {ar: ["errors", "sources", "__version__"], sources: [], testing: []}
    for module, not_objects in modules.items():
        for name in set(module.__all__) - set(not_objects):
            yield f"{module.__name__}.{name}"
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.AgenticRayError):
            yield f"{errors.__name__}.{name}"
    submodules = (xp.linalg, xp.fft, xp.random, xp.lib.stride_tricks)
    for module in (xp, *submodules):
        for name in module.__all__:
            yield f"{module.__name__}.{name}"
    for kind, full in ((xp.Array, "agentic_ray.array.Array"),):
        for name in dir(kind):
            if not name.startswith("_"):
                yield f"{full}.{name}"


def test_each_metric_is_explained() -> None:
    from agentic_ray.master import Master
    from agentic_ray.service.exposition import render
    from agentic_ray.telemetry import ClusterState

    page = (ROOT / "docs/operations/metrics.md").read_text()
    with Master() as master:
        shown = render(master.statistics(), ClusterState((), 0.0))
        named = set(re.findall(r"^# TYPE (\w+)", shown, re.MULTILINE))
    assert named
    assert {name for name in named if f"`{name}" not in page} == set()


def test_each_finding_of_doctor_is_explained() -> None:
    page = (ROOT / "docs/operations/doctor.md").read_text()
    sources = [path.read_text() for path in (ROOT / "agentic_ray/diagnosis").glob("*.py")]
    findings = set(re.findall(r'Check\(\s*"([^"]+)"', "".join(sources))) | {"shared memory"}
    assert len(findings) >= 14
    assert {name for name in findings if f"| `{name}` |" not in page} == set()


def test_both_readmes_have_the_same_blocks_and_links() -> None:
    english, chinese = ((ROOT / name).read_text() for name in ("README.md", "README.zh.md"))
    fences = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    assert fences.findall(english) == fences.findall(chinese)
    links = re.compile(r"\]\(([^)]+)\)")
    other = {"README.md", "README.zh.md"}
    assert set(links.findall(english)) - other == set(links.findall(chinese)) - other
    assert "](README.zh.md)" in english
    assert "](README.md)" in chinese


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "SECURITY.md", "CONTRIBUTING.md"])
def test_links_of_a_page_beside_the_docs_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
