"""Reference pages that are made from the settings and from the command line."""

from __future__ import annotations

import dataclasses

import click
from griffe import Docstring, DocstringSectionKind, Parser

from agentic_ray.cli.app import cli
from agentic_ray.config import Settings


def pages() -> dict[str, str]:
    """The text of each page, by its path in the site."""
    return {"reference/settings.md": _settings(), "reference/cli.md": _command_line()}


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "`agentic_ray.init(NAME=value)` takes every setting by its name. A program that gives no",
        "value gets that of the environment variable, else the default. Names that end in",
        "`_seconds` are seconds, in `_bytes` bytes.",
        "",
        "| name | environment | default | meaning |",
        "| --- | --- | --- | --- |",
    ]
    about = {}
    for section in Docstring(Settings.__doc__ or "").parse(Parser.numpy):
        if section.kind is DocstringSectionKind.parameters:
            about = {item.name: " ".join(item.description.split()) for item in section.value}
    for field in dataclasses.fields(Settings):
        variable = f"AGENTIC_RAY_{field.name.upper()}"
        lines.append(f"| `{field.name}` | `{variable}` | `{field.default}` | {about[field.name]} |")
    return "\n".join(lines) + "\n"


def _command_line() -> str:
    lines = ["# Command line", "", "The texts that `agentic-ray COMMAND --help` prints.", ""]
    context = click.Context(cli, info_name="agentic-ray", max_content_width=90)
    lines += ["```text", cli.get_help(context), "```", ""]
    for name, command in sorted(cli.commands.items()):
        inner = click.Context(command, info_name=name, parent=context, max_content_width=90)
        lines += [f"## {name}", "", "```text", command.get_help(inner), "```", ""]
    return "\n".join(lines)
