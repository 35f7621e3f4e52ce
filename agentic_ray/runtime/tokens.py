"""The token that an embedded Ray asks for: this process's own, written to no file.

If a user has no token, Ray would write a new one to ``~/.ray/auth_token``, readable by all. Every
`ray start --head` of the user's would ask for it from then on, while the other nodes know nothing
of it. So an embedded Ray is given a token in the environment, which its processes, and programs
that this one starts, inherit.
"""

from __future__ import annotations

import os
import secrets
from typing import Any, Final

import ray

_core: Any = ray._raylet
"""Ray's core, in which the token and the mode are cached."""
_MODE: Final = "RAY_AUTH_MODE"
_TOKEN: Final = "RAY_AUTH_TOKEN"  # the variable's name, no secret

_own: str | None = None
_mode_before: str | None = None


def give_own() -> None:
    """Make an embedded Ray that starts next use a token of its own, unless the user has one or has
    chosen that there be none."""
    global _own, _mode_before
    loader = _loader()
    if loader is None or os.environ.get(_MODE, "token").lower() != "token":
        return
    if loader.has_token(ignore_auth_mode=True):
        return  # the user's, or that of an earlier embedded Ray in the same session
    _own, _mode_before = secrets.token_hex(32), os.environ.get(_MODE)
    os.environ[_TOKEN] = _own
    loader.reset_cache()


def take_back() -> None:
    """Forget the token again: the embedded Ray has ended."""
    global _own
    loader = _loader()
    if _own is None or loader is None:
        return
    if os.environ.get(_TOKEN) == _own:
        del os.environ[_TOKEN]
    if _mode_before is None:
        os.environ.pop(_MODE, None)  # set by Ray
    _own = None
    loader.reset_cache()
    _core.Config.initialize("")  # reads the mode anew


def use_that_of_this_user() -> None:
    """Send this user's Ray token if there is one and no mode was set.

    `ray start --head` asks for the token as soon as the user has one, but a driver sends it by
    itself only to a cluster that it found without an address. To other machines it is sent only
    if RAY_AUTH_MODE says so.
    """
    try:
        from ray._private.authentication import authentication_token_setup as setup
    except ImportError:
        return
    setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _loader() -> Any:
    """Return the cache of the token; None: a Ray from before tokens."""
    loader = getattr(_core, "AuthenticationTokenLoader", None)
    return None if loader is None else loader.instance()
