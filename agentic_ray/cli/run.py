"""The command ``run``: runs a user's script as ``__main__`` inside a session."""

from __future__ import annotations

from pathlib import Path

import click

from agentic_ray.cli import options
from agentic_ray.cli.scripts import become, compiled, execute, show


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
        code = compiled(file)
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        show(error.with_traceback(None))
        context.exit(1)
    main = become(file, arguments)
    ar.init(address, num_cpus=num_cpus)
    try:
        exit_code = execute(code, main)
    finally:
        ar.shutdown()
    context.exit(exit_code)
