"""Runs a user's script as ``__main__``, as Python would."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import CodeType, ModuleType

import click

from agentic_ray.tracebacks import shows_all, trim


def compiled(file: Path) -> CodeType:
    """Return the code of a script.

    Raises
    ------
    OSError
        It cannot be read.
    SyntaxError, ValueError
        It is no Python.
    """
    with io.open_code(str(file)) as stream:
        code: CodeType = compile(stream.read(), str(file), "exec", dont_inherit=True)
    return code


def become(file: Path, arguments: tuple[str, ...]) -> ModuleType:
    """Make this process look as if Python had been started with the script.

    Must be called before Ray starts: Ray tells workers where to import from by ``sys.argv[0]``. The
    module stays ``__main__``, so that functions of the script are pickled by value, as they would
    be.
    """
    main = ModuleType("__main__")
    main.__file__ = str(file)
    main.__builtins__ = __builtins__  # type: ignore[attr-defined]
    sys.argv = [str(file), *arguments]
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules["__main__"] = main
    return main


def execute(code: CodeType, main: ModuleType) -> int:
    """Run the script; return its exit code. An exception is shown with the script's own frames."""
    try:
        exec(code, main.__dict__)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        click.echo(str(error.code), err=True)
        return 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        show(error)
        return 1
    return 0


def show(error: BaseException) -> None:
    """Print an exception as Python would, through the script's own hook if it set one."""
    if not shows_all():
        trim(error)
    sys.excepthook(type(error), error, error.__traceback__)
