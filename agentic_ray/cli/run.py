"""The command ``run``: runs a user's script as ``__main__`` inside a session."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import ModuleType

import click

from agentic_ray.cli import options
from agentic_ray.tracebacks import shows_all, trim


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@options.session
@click.pass_context
def run(
    context: click.Context,
    file: Path,
    arguments: tuple[str, ...],
    address: str | None,
    num_cpus: int | None,
) -> None:
    """Run a Python script inside a session, as `python FILE` would run it.

    Ray is started, or joined, before and left after. Arguments after `--` go to the script.

    \b
    agentic-ray run my_script.py -- --my-option 3
    """
    import agentic_ray as ar

    try:
        code = _compile(file)
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        _show(error.with_traceback(None))
        context.exit(1)
    main = _become(file, arguments)
    ar.init(address, num_cpus=num_cpus)
    try:
        exit_code = _execute(code, main)
    finally:
        ar.shutdown()
    context.exit(exit_code)


def _compile(file: Path) -> object:
    with io.open_code(str(file)) as stream:
        return compile(stream.read(), str(file), "exec", dont_inherit=True)


def _become(file: Path, arguments: tuple[str, ...]) -> ModuleType:
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


def _execute(code: object, main: ModuleType) -> int:
    """Run the script; return its exit code. An exception is shown with the script's own frames."""
    try:
        exec(code, main.__dict__)  # type: ignore[arg-type]
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        click.echo(str(error.code), err=True)
        return 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        _show(error)
        return 1
    return 0


def _show(error: BaseException) -> None:
    """Print an exception as Python would, through the script's own hook if it set one."""
    if not shows_all():
        trim(error)
    sys.excepthook(type(error), error, error.__traceback__)
