"""The files of the page, as they are served: with a strict content security policy, compressed."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

INDEX: Final = "index.html"
MANIFEST: Final = "manifest.json"

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text can become markup or script, whatever the code of the page does with it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing but files of this server is loaded, and nobody may put the page into a frame."""

_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Vary": "Accept-Encoding",
}

_TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of the page: its bytes, the same compressed, and its headers."""

    content: bytes
    compressed: bytes
    headers: Mapping[str, str]

    def answer(self, accepted: str | None, known: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers for a request.

        Parameters
        ----------
        accepted, known : str or None
            Its headers ``Accept-Encoding`` and ``If-None-Match``.
        """
        headers = dict(self.headers)
        if known is not None and headers["ETag"] in [tag.strip() for tag in known.split(",")]:
            return 304, b"", headers
        if accepted is not None and "gzip" in accepted.lower():
            return 200, self.compressed, headers | {"Content-Encoding": "gzip"}
        return 200, self.content, headers


def load_files() -> dict[str, PageFile]:
    """The files by name; `INDEX` is the page itself."""
    folder = resources.files("agentic_ray.service.page") / "static"
    return {
        entry.name: _made(entry.name, entry.read_bytes())
        for entry in folder.iterdir()
        if entry.name.rpartition(".")[2] in _TYPES
    }


def manifest() -> dict[str, str]:
    """Return digests of the sources that the bundle was built of, and of each of its files."""
    folder = resources.files("agentic_ray.service.page") / "static"
    found: dict[str, str] = json.loads((folder / MANIFEST).read_text("ascii"))
    return found


def _made(name: str, content: bytes) -> PageFile:
    tag = hashlib.sha256(content).hexdigest()[:32]
    headers = {
        **_HEADERS,
        "Content-Type": _TYPES[name.rpartition(".")[2]],
        "ETag": f'"{tag}"',
        # Asked for anew each time, and answered with 304: a new version is seen at once.
        "Cache-Control": "no-cache",
    }
    return PageFile(content, gzip.compress(content, 9, mtime=0), headers)
