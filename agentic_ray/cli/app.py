"""``agentic-ray``: the group of commands, and their messages and exit codes for errors.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from agentic_ray import __version__
from agentic_ray.cli.completion import PROGRAM, completion
from agentic_ray.cli.doctor import doctor
from agentic_ray.cli.explain import explain
from agentic_ray.cli.jobs import cancel, events, jobs, logs, result, retry, status, submit, upload
from agentic_ray.cli.join import join
from agentic_ray.cli.journal import journal
from agentic_ray.cli.local import demo, nodes
from agentic_ray.cli.masters import master
from agentic_ray.cli.replay import replay
from agentic_ray.cli.run import run
from agentic_ray.cli.serve import serve
from agentic_ray.cli.simulate import simulate
from agentic_ray.cli.tokens import audit, token
from agentic_ray.cli.top import top
from agentic_ray.errors import AgenticRayError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name=PROGRAM)
def cli() -> None:
    """A GPU-aware compute framework on Ray."""


_COMMANDS = (
    demo,
    run,
    submit,
    status,
    result,
    logs,
    cancel,
    retry,
    events,
    upload,
    jobs,
    nodes,
    top,
    join,
    explain,
    replay,
    simulate,
    serve,
    doctor,
    completion,
)
for _command in _COMMANDS:
    cli.add_command(_command)
for _group in (journal, master, token, audit):
    cli.add_command(_group)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; default: those of the process.
    """
    sys.exit(run_cli(arguments))


def run_cli(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    try:
        code = cli.main(
            None if arguments is None else list(arguments), PROGRAM, standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output has enough (`| head`); Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (AgenticRayError, FileNotFoundError) as error:
        click.echo(f"error: {error}", err=True)
        return 1
