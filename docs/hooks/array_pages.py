"""The reference of `agentic_ray.array`: a page for each area, made from the docstrings.

The names are objects of several kinds (functions, ufuncs, NumPy's dtypes, numbers), and many are
made by code, so they are looked at as they are at run time.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from griffe import Docstring, DocstringSectionKind, Parser

import agentic_ray.array as xp

FOLDER = "reference/array"
AREAS = {
    "creation": "Creating and converting",
    "elementwise": "Elementwise functions",
    "statistics": "Sums, statistics and scans",
    "sorting": "Sorting, searching and sets",
    "shape": "Shapes, joining and moving",
    "indexing": "Picking and assigning",
    "products": "Products and linear algebra",
    "signals": "Signals, windows and polynomials",
    "blocks": "Your own functions over blocks",
    "io": "Files",
    "dtypes": "Dtypes and numbers",
    "settings": "Settings and inspection",
}
_AREA_OF_MODULE = {
    **dict.fromkeys(("conversion", "creation", "ranges", "coordinates", "triangles"), "creation"),
    **dict.fromkeys(("elementwise", "special", "comparing"), "elementwise"),
    **dict.fromkeys(("statistics", "distribution", "scans", "differences"), "statistics"),
    **dict.fromkeys(("nanfunctions", "quantiles", "histograms"), "statistics"),
    **dict.fromkeys(("sorting", "searching", "sets", "uniqueness"), "sorting"),
    **dict.fromkeys(("joining", "manipulation", "repeating", "insertion"), "shape"),
    **dict.fromkeys(("taking", "selecting", "mutation", "iterating", "packing"), "indexing"),
    **dict.fromkeys(("linalg.einsums", "linalg.products", "linalg.structure"), "products"),
    "linalg.vectors": "products",
    **dict.fromkeys(("signals", "windows", "polynomials"), "signals"),
    **dict.fromkeys(("alongaxis", "blocks", "overlap", "gufuncs"), "blocks"),
    **dict.fromkeys(("io", "io.numpy_files"), "io"),
    **dict.fromkeys(("dtypes",), "dtypes"),
    **dict.fromkeys(("core.chunks", "describing", "inspection"), "settings"),
}
_SUBMODULES = {
    "linalg": (xp.linalg, "Linear algebra: linalg"),
    "fft": (xp.fft, "Fourier transforms: fft"),
    "random": (xp.random, "Random numbers: random"),
    "lib": (xp.lib.stride_tricks, "Windows over arrays: lib.stride_tricks"),
}
_CLASSES = {
    "array": (xp.Array, "agentic_ray.array.Array", "The class Array"),
    "generator": (xp.random.Generator, "agentic_ray.array.random.Generator", "Generator's methods"),
}


def titles() -> dict[str, str]:
    """The title of each page, by its path in the site; the index page is not among them."""
    found = {f"{FOLDER}/{area}.md": title for area, title in AREAS.items()}
    found |= {f"{FOLDER}/{area}.md": title for area, (_, title) in _SUBMODULES.items()}
    found |= {f"{FOLDER}/{area}.md": title for area, (_, _, title) in _CLASSES.items()}
    return found


@functools.cache
def public_names() -> dict[str, str]:
    """The page of each public name, by the full name."""
    found = {}
    home = _home_modules()
    for name in xp.__all__:
        if isinstance(getattr(xp, name), ModuleType):
            page = name
        elif name == "Array":
            page = "array"
        else:
            page = _AREA_OF_MODULE.get(home.get(name, "dtypes"), "dtypes")
        found[f"agentic_ray.array.{name}"] = f"{FOLDER}/{page}.md"
    for page, (module, _) in _SUBMODULES.items():
        for name in module.__all__:
            full = f"{module.__name__}.{name}"
            found[full] = f"{FOLDER}/{'generator' if name == 'Generator' else page}.md"
    for page, (kind, full, _) in _CLASSES.items():
        for name in _members(kind):
            found[f"{full}.{name}"] = f"{FOLDER}/{page}.md"
    return found


def pages() -> dict[str, str]:
    """The text of each page, by its path in the site."""
    body: dict[str, list[str]] = {uri: [f"# {title}", ""] for uri, title in titles().items()}
    for page, (module, _) in _SUBMODULES.items():
        body[f"{FOLDER}/{page}.md"] += [_anchor(f"agentic_ray.array.{page}", module.__name__), ""]
        body[f"{FOLDER}/{page}.md"] += [*_docstring(module), ""]
    for page, (kind, full, _) in _CLASSES.items():
        body[f"{FOLDER}/{page}.md"] += _entry(full, kind)
    for full, uri in sorted(public_names().items(), key=lambda pair: pair[0].lower()):
        value = _value(full)
        if not isinstance(value, ModuleType) and value not in (xp.Array, xp.random.Generator):
            body[uri] += _entry(full, value)
    made = {uri: "\n".join(lines) + "\n" for uri, lines in body.items()}
    made[f"{FOLDER}/index.md"] = _index()
    return made


def _index() -> str:
    lines = [
        "# agentic_ray.array",
        "",
        *_docstring(xp),
        "",
        "Most names are NumPy's and have NumPy's signatures. An entry says what differs; where it",
        'only says "see `numpy.NAME`", NumPy\'s documentation holds.',
        "",
        "| area | names |",
        "| --- | --- |",
    ]
    for uri, title in titles().items():
        names = [name for name, page in public_names().items() if page == uri]
        here = uri.removeprefix(f"{FOLDER}/")
        shown = ", ".join(
            f"[`{name.removeprefix('agentic_ray.array.')}`]({here}#{name})" for name in names
        )
        lines.append(f"| [{title}]({here}) | {shown} |")
    return "\n".join(lines) + "\n"


def _home_modules() -> dict[str, str]:
    """The module below agentic_ray.array that each name is imported from."""
    tree = ast.parse(Path(xp.__file__).read_text())
    prefix = "agentic_ray.array."
    return {
        alias.asname or alias.name: node.module.removeprefix(prefix)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(prefix)
        for alias in node.names
    }


def _members(kind: type) -> Iterator[str]:
    return (name for name in sorted(dir(kind)) if not name.startswith("_"))


def _value(full: str) -> Any:
    value: Any = xp
    for part in full.removeprefix("agentic_ray.array.").split("."):
        value = inspect.getattr_static(value, part, None) or getattr(value, part)
    return value


def _anchor(full: str, shown: str) -> str:
    if "__" in full:  # Markdown would take the underscores of an id for emphasis
        return f'<a id="{full}"></a>\n\n## `{shown}`'
    return f"## `{shown}` {{#{full}}}"


def _entry(full: str, value: Any) -> list[str]:
    shown = full.removeprefix("agentic_ray.array.")
    lines = [_anchor(full, shown), ""]
    signature = _signature(value)
    if signature:
        name = shown.rpartition(".")[2]
        lines += ["```python", f"{name}{signature}", "```", ""]
    if _is_numpys(value):
        return [*lines, f"NumPy's own: see `numpy.{value.__name__}`.", ""]
    if isinstance(value, (float, int, str)) or value is None:
        return [*lines, f"The constant `{value!r}`.", ""]
    lines += [*_docstring(value), ""]
    if "**Examples**" not in lines and _in_numpy(shown):
        lines += [f"For the rest, and for examples, see `numpy.{shown}`.", ""]
    return lines


def _in_numpy(shown: str) -> bool:
    """Whether NumPy has an object of this name in the same place."""
    value: Any = np
    for part in shown.split("."):
        value = getattr(value, part, None)
    return value is not None


def _is_numpys(value: Any) -> bool:
    """Whether it is a class or a function of NumPy's, as it is there."""
    if not hasattr(value, "__name__"):
        return False
    code = getattr(inspect.unwrap(value), "__code__", None)
    if code is not None:
        return Path(np.__file__).parent in Path(code.co_filename).parents
    return (getattr(value, "__module__", None) or "").startswith("numpy")


def _signature(value: Any) -> str:
    """The parameters with their defaults, without annotations; empty if there are none."""
    if isinstance(value, (property, functools.cached_property)) or _is_numpys(value):
        return ""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):  # a number, or an object that is indexed and not called
        return ""
    parameters = []
    for parameter in signature.parameters.values():
        if parameter.default is np._NoValue:
            parameter = parameter.replace(default=_Shown("…"))
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty))
    bare = signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return str(bare)


class _Shown:
    """A default that is shown as this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _docstring(value: Any) -> Iterator[str]:
    """The sections of a docstring in Markdown."""
    text = inspect.getdoc(value)
    if not text:
        return
    for section in Docstring(text).parse(Parser.numpy, warn_missing_types=False):
        kind = section.kind
        if kind is DocstringSectionKind.text:
            yield from (section.value, "")
        elif kind is DocstringSectionKind.examples:
            yield from ("**Examples**", "")
            for part, content in section.value:
                if part is DocstringSectionKind.examples:
                    yield from ("```python", content, "```", "")
                else:
                    yield from (content, "")
        elif isinstance(section.value, list):
            yield from (f"**{kind.value.capitalize()}**", "")
            for item in section.value:
                name = getattr(item, "name", "")
                said = getattr(item, "annotation", None)
                head = f"`{name}`" if name else ""
                if said:
                    head += f"{' : ' if name else ''}`{said}`"
                about = " ".join(item.description.split())
                yield f"- {head} {about}".rstrip()
            yield ""
