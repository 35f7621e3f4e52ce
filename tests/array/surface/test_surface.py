"""Everything that NumPy's namespaces and arrays have, over our arrays, against NumPy."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from surface.harness import MODES, difference, names_in, run

import agentic_ray.array as xp

FOLDER = Path(__file__).parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = [_load(path) for path in sorted(FOLDER.glob("forms_*.py"))]
FORMS = [
    line.strip()
    for table in TABLES
    for line in table.FORMS.splitlines()
    if line.strip() and not line.strip().startswith("#")
]
DIFFERENT: dict[str, str] = {}
"""Forms whose outcome differs from NumPy's on purpose, and why: reviewed one by one. A key may be
``"mode: form"`` for one mode alone."""
LEFT_OUT: dict[str, str] = {}
"""Names of NumPy's that are not here on purpose, and why."""
for _table in TABLES:
    DIFFERENT.update(getattr(_table, "DIFFERENT", {}))
    LEFT_OUT.update(getattr(_table, "LEFT_OUT", {}))


@pytest.mark.parametrize("form", FORMS)
def test_as_numpy(form: str) -> None:
    wanted = run(form, "numpy")
    found = {mode: difference(run(form, mode), wanted) for mode in MODES}
    wrong = {
        mode: text
        for mode, text in found.items()
        if text and form not in DIFFERENT and f"{mode}: {form}" not in DIFFERENT
    }
    assert not wrong, "\n".join(f"{mode}: {text}" for mode, text in wrong.items())


def test_reviewed_differences_are_still_there() -> None:
    """A form leaves the list when it agrees."""
    for key in DIFFERENT:
        mode, _, form = key.rpartition(": ") if key.startswith(MODES) else ("", "", key)
        modes = [mode] if mode else list(MODES)
        wanted = run(form, "numpy")
        assert any(difference(run(form, mode), wanted) for mode in modes), key


def _public(space: object, prefix: str = "") -> set[str]:
    return {
        prefix + name
        for name in dir(space)
        if not name.startswith("_") and callable(getattr(space, name))
    }


NUMPY = _public(np) | _public(np.linalg, "linalg.") | _public(np.fft, "fft.")
OURS = _public(xp) | _public(xp.linalg, "linalg.") | _public(xp.fft, "fft.")
METHODS = {f"ndarray.{name}" for name in dir(np.ndarray) if not name.startswith("_")}
OUR_METHODS = {f"ndarray.{name}" for name in dir(xp.Array) if not name.startswith("_")}
DRAWS = _public(np.random.Generator, "random.")
OUR_DRAWS = _public(xp.random.Generator, "random.")


def test_every_name_is_there_or_left_out_on_purpose() -> None:
    wanted = NUMPY | METHODS | DRAWS
    there = OURS | OUR_METHODS | OUR_DRAWS
    assert not sorted(wanted - there - LEFT_OUT.keys())
    assert not sorted(LEFT_OUT.keys() & there)
    assert not sorted(LEFT_OUT.keys() - wanted)


def test_every_name_has_a_form() -> None:
    covered = {name for form in FORMS for name in names_in(form)}
    assert not sorted((NUMPY | METHODS | DRAWS) - covered - LEFT_OUT.keys())
