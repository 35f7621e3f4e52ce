"""Captured functions: what they see is what they saw, here and in another process."""

from __future__ import annotations

import enum
import functools
import importlib
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.errors import InvalidTypeError, SerializationError
from agentic_ray.graph import Captured, Codelet, capture, capture_codelet, content_key, loaded

FACTOR = 7


def scaled(x: Any) -> Any:
    return x * FACTOR


@pytest.fixture
def factor() -> Iterator[Callable[[int], None]]:
    def change(value: int) -> None:
        globals()["FACTOR"] = value

    yield change
    globals()["FACTOR"] = 7


class Scale:
    step = 1

    def __init__(self, by: int) -> None:
        self.by = by

    def __call__(self, x: Any) -> Any:
        return x * self.by * FACTOR

    def shifted(self, x: Any) -> Any:
        return x + self.by + FACTOR


def test_globals_are_those_of_the_capture(factor: Callable[[int], None]) -> None:
    first = capture(scaled)
    factor(9)
    second = capture(scaled)
    assert (first(1), second(1)) == (7, 9)
    assert first != second
    factor(7)
    assert capture(scaled) == first
    assert capture(scaled) is first, "equal bytes are one object"


def test_closures_defaults_and_attributes_are_those_of_the_capture() -> None:
    table = np.ones(3)
    known = [1]
    scale = Scale(2)

    def f(x: Any, more: list[int] = known) -> Any:
        return x + table.sum() + sum(more) + scale.by

    f.note = 1  # type: ignore[attr-defined]
    first = capture(f)
    wanted = f(0)
    table[0] = 100
    assert first(0) == wanted
    assert capture(f)(0) == wanted + 99
    known.append(10)
    scale.by = 20
    assert first(0) == wanted
    assert capture(f)(0) == wanted + 99 + 10 + 18


def test_what_the_function_writes_to_stays_its_own() -> None:
    table = np.zeros(2)

    def counts(x: Any) -> float:
        table[0] += 1
        return float(table[0])

    first = capture(counts)
    assert [first(0), first(0)] == [1, 2]
    assert table[0] == 0
    assert pickle.loads(pickle.dumps(first)) is first  # what is sent is what was captured
    assert capture(counts) is first


def test_callable_objects_methods_and_partials(factor: Callable[[int], None]) -> None:
    scale = Scale(2)
    made = [capture(scale), capture(scale.shifted), capture(functools.partial(scaled, 3))]
    scale.by = 5
    factor(9)
    assert [made[0](1), made[1](1), made[2]()] == [14, 10, 21]
    again = [capture(scale), capture(scale.shifted), capture(functools.partial(scaled, 3))]
    assert [again[0](1), again[1](1), again[2]()] == [45, 15, 27]


def test_recursive_and_cached_functions(factor: Callable[[int], None]) -> None:
    def faculty(n: int) -> int:
        return FACTOR if n == 0 else n * faculty(n - 1)

    @functools.lru_cache(maxsize=4)
    def cached(n: int) -> int:
        return n * FACTOR

    made, kept = capture(faculty), capture(cached)
    factor(1)
    assert (made(3), kept(2)) == (42, 14)


def test_compiled_functions(factor: Callable[[int], None]) -> None:
    numba = pytest.importorskip("numba")
    compiled = numba.njit(scaled)
    first = capture(compiled)
    factor(9)
    assert compiled(1.0) == 9
    assert first(1.0) == 7, "numba takes globals at its first call; we take them at the capture"
    assert capture(numba.njit("float64(float64)")(scaled))(2) == 18.0
    factor(7)
    assert capture(numba.njit(scaled)) == first


def test_tracebacks_name_the_file() -> None:
    def fails(x: Any) -> Any:
        return x / 0

    with pytest.raises(ZeroDivisionError) as caught:
        capture(fails)(1)
    assert caught.traceback[-1].path == Path(__file__)
    assert caught.traceback[-1].lineno == fails.__code__.co_firstlineno


def test_a_class_of_the_main_script_is_left_as_it_is() -> None:
    class Local:
        weight = 3

        def of(self, x: int) -> int:
            return x * self.weight * FACTOR

    class Kind(enum.Enum):
        ONE = 1

        def twice(self) -> int:
            return 2 * int(self.value)

    before = Local.of, Kind.twice
    first = capture(lambda x: Local().of(x) + Kind.ONE.twice())
    Local.weight = 5
    assert first(1) == 23
    assert Local.weight == 5, "loading a captured function changes no class of the caller"
    assert (Local.of, Kind.twice) == before
    assert capture(lambda x: Local().of(x))(1) == 35
    unchanged = capture(lambda: Local)
    assert unchanged() is Local, "an unchanged class is the caller's own"


def test_library_functions_are_given_back() -> None:
    for function in (np.add, np.mean, np.linalg.svd, len, int, content_key):
        assert capture(function) is function
    bound = capture([3, 1].index)
    assert isinstance(bound, Captured)
    assert bound(1) == 1


def test_what_cannot_be_captured_is_refused_by_name() -> None:
    lock = threading.Lock()

    def locked(x: Any) -> Any:
        return lock and x

    with pytest.raises(SerializationError, match=r"locked.*lock.*inside the function"):
        capture(locked)
    with pytest.raises(InvalidTypeError, match="int"):
        capture(3)  # type: ignore[arg-type]


def test_codelets_made_by_hand_are_captured(factor: Callable[[int], None]) -> None:
    codelet = Codelet("scaled", scaled)
    first = capture_codelet(codelet)
    factor(9)
    assert first.cpu is not None
    assert first.cpu(1) == 7
    assert capture_codelet(first) is first
    library = Codelet("add", np.add)
    assert capture_codelet(library) is library


def test_parameters_are_known_without_loading() -> None:
    def f(a: int, /, b: int, *, xp: Any, **rest: Any) -> None: ...

    made = capture(f)
    assert isinstance(made, Captured)
    assert made.keywords == {"b", "xp"}
    part = capture(functools.partial(f, 1))
    assert isinstance(part, Captured)
    assert part.keywords == {"b", "xp"}
    assert loaded(made) is made.function
    assert loaded(np.add) is np.add


values = st.one_of(
    st.integers(), st.floats(), st.text(max_size=5), st.booleans(), st.none(),
    st.lists(st.integers(), max_size=3),
)  # fmt: skip


@given(values, values)
def test_equal_sight_is_an_equal_capture(one: Any, other: Any) -> None:
    seen = [one]

    def look(x: Any) -> Any:
        return seen[0], x

    first = capture(look)
    seen[0] = other
    second = capture(look)
    assert repr(first(1)) == repr((one, 1))
    assert repr(second(1)) == repr((other, 1))
    assert (first == second) == (repr(one) == repr(other))
    assert (content_key("k", first) == content_key("k", second)) == (repr(one) == repr(other))


# --- modules of the user's own -------------------------------------------------------------


MODULE = """
import helper_of_capture as helper
FACTOR = {factor}
class Point:
    def of(self, x):
        return x
def inner(x):
    return x * FACTOR
def outer(x):
    return inner(x) + helper.step() + helper.OFFSET
"""
HELPER = "OFFSET = {offset}\ndef step():\n    return OFFSET * 10\n"


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, Path]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "module_of_capture.py").write_text(MODULE.format(factor=2))
    (tmp_path / "helper_of_capture.py").write_text(HELPER.format(offset=1))
    yield importlib.import_module("module_of_capture"), tmp_path
    for name in ("module_of_capture", "helper_of_capture"):
        del sys.modules[name]


def test_modules_of_the_users_are_as_they_were(modules: tuple[Any, Path]) -> None:
    module, _ = modules
    first = capture(module.outer)
    before = content_key("k", module.outer)
    assert first(1) == 2 + 10 + 1
    module.helper.OFFSET = 3
    assert first(1) == 13
    assert capture(module.outer)(1) == 2 + 30 + 3
    assert content_key("k", module.outer) != before
    module.helper.OFFSET = 1
    assert capture(module.outer) == first
    assert content_key("k", module.outer) == before
    module.FACTOR = 5
    assert capture(module.outer)(1) == 5 + 10 + 1
    assert content_key("k", module.outer) != before


def test_a_module_that_is_loaded_again(modules: tuple[Any, Path]) -> None:
    module, folder = modules
    first = capture(module.outer)
    (folder / "module_of_capture.py").write_text(MODULE.format(factor=4).replace("inner(x) +", "+"))
    importlib.reload(module)
    assert capture(module.outer)(1) == 11
    assert first(1) == 13


def test_a_class_of_a_module_is_refused_where_it_is_another_one(modules: tuple[Any, Path]) -> None:
    module, folder = modules
    first = capture(lambda x: module.Point().of(x))
    assert first(3) == 3
    kept = pickle.dumps(capture(lambda x: module.Point().of(x) + 1))
    text = (folder / "module_of_capture.py").read_text()
    (folder / "module_of_capture.py").write_text(text.replace("return x\n", "return x * 5\n"))
    importlib.reload(module)
    assert capture(lambda x: module.Point().of(x))(3) == 15
    made = pickle.loads(kept)
    with pytest.raises(SerializationError, match=r"Point of module module_of_capture.*again"):
        made(3)


def test_modules_that_are_free_variables(modules: tuple[Any, Path]) -> None:
    import helper_of_capture as local  # type: ignore[import-not-found]

    first = capture(lambda x: x + local.OFFSET)
    local.OFFSET = 50
    assert first(0) == 1
    assert capture(lambda x: x + local.OFFSET)(0) == 50


def test_a_module_that_cannot_be_looked_into_is_imported_where_it_runs(
    modules: tuple[Any, Path],
) -> None:
    module, _ = modules
    module.inner.__globals__["FACTOR"] = threading.Lock()
    made = capture(module.outer)
    assert isinstance(made, Captured)
    assert made.function is module.outer


def test_a_function_that_uses_such_a_module(
    modules: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _ = modules
    monkeypatch.setattr("agentic_ray.graph.captured.MODULE_BYTES", 4096)
    here = np.ones(10_000)
    for held in (np.ones(10_000), threading.Lock(), "x" * 10_000):
        module.inner.__globals__["FACTOR"] = held
        made = capture(lambda x: (x + here.sum(), module.inner))
        assert made(1) == (10_001.0, module.inner), "the module's are imported, its own are kept"


def test_packages_installed_elsewhere_are_libraries(
    modules: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, folder = modules
    assert capture(module.outer) is not module.outer
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "some-1.0.dist-info").mkdir()
    (folder / "elsewhere" / "package_of_capture").mkdir()
    (folder / "elsewhere" / "package_of_capture" / "__init__.py").write_text("")
    (folder / "elsewhere" / "package_of_capture" / "part.py").write_text("def f(x): return x\n")
    monkeypatch.syspath_prepend(str(folder / "elsewhere"))
    part = importlib.import_module("package_of_capture.part")
    assert capture(part.f) is part.f


def test_another_process_sees_the_same(modules: tuple[Any, Path]) -> None:
    module, folder = modules
    module.FACTOR = 6
    module.helper.OFFSET = 2
    point = module.Point
    array = np.arange(4.0)
    made = [capture(module.outer), capture(lambda x: x + array.sum()), capture(lambda x: point)]
    array[:] = 0
    (folder / "sent").write_bytes(pickle.dumps(made))
    script = f"""
        import pickle, sys
        sys.path.insert(0, {str(folder)!r})
        sent = pickle.load(open({str(folder / "sent")!r}, "rb"))
        print([sent[0](1), float(sent[1](1)), sent[2](1).__module__])
        again = pickle.loads(pickle.dumps(sent))
        print(again[0] == sent[0], again[0](1))
        print([one.__content_key__() for one in sent[:2]])
    """
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    keys = [one.__content_key__() for one in made[:2] if isinstance(one, Captured)]
    assert ran.stdout.splitlines() == [
        "[28, 7.0, 'module_of_capture']",
        "True 28",
        str(keys),
    ]
