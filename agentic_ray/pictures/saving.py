"""Writes a picture to a file, in the form that the file's ending asks for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from agentic_ray.errors import InvalidArgumentError


def save(path: str | os.PathLike[str], forms: Mapping[str, Callable[[], str]]) -> Path:
    """Write the form that belongs to the ending of ``path``; return the path.

    Parameters
    ----------
    forms : mapping of str to callable
        Maker of the text, for each ending such as ``".svg"``.

    Raises
    ------
    InvalidArgumentError
        The ending is none of these.
    """
    target = Path(path)
    form = forms.get(target.suffix.lower())
    if form is None:
        raise InvalidArgumentError(
            f"{target.name!r} should end with {', '.join(list(forms)[:-1])} or {list(forms)[-1]}"
        )
    target.write_text(form(), encoding="utf-8")
    return target
