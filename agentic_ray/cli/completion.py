"""``agentic-ray completion``: the script with which a shell completes commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "agentic-ray"
_VARIABLE = "_AGENTIC_RAY_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands and options.

    \b
    bash:  eval "$(agentic-ray completion bash)"    in ~/.bashrc
    zsh:   eval "$(agentic-ray completion zsh)"     in ~/.zshrc
    fish:  agentic-ray completion fish | source     in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None, "click knows the three shells"
    click.echo(made(context.find_root().command, {}, PROGRAM, _VARIABLE).source())
