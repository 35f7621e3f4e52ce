"""Who asks, and what they may do: `Caller`. Pure; the tokens are in ``tokens``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

from starlette.requests import HTTPConnection

from agentic_ray.master.jobs import ANONYMOUS
from agentic_ray.service.bodies import RequestError

Scope = Literal["read", "submit", "admin"]

SCOPES: Final[tuple[Scope, ...]] = ("read", "submit", "admin")
"""Each includes those before it: see one's own; submit and cancel too; all that is everybody's."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a request.

    Parameters
    ----------
    user : str
        The owner of the jobs that this caller submits.
    scope : {"read", "submit", "admin"}
    token_id : str
        Which token was shown; empty if none is needed.
    """

    user: str
    scope: Scope = "admin"
    token_id: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether what belongs to others is open too."""
        return self.scope == "admin"

    def may_see(self, owner: str) -> bool:
        """Whether this caller may see and change what belongs to ``owner``."""
        return self.is_admin or owner == self.user

    def may_act_for(self, owner: str) -> None:
        """Raise RequestError 403 unless this caller may submit on behalf of ``owner``."""
        if not self.may_see(owner):
            raise RequestError(
                403, "this token submits jobs of its owner only; leave out user", "Forbidden"
            )

    def needs(self, scope: Scope) -> None:
        """Raise RequestError 403 unless this caller has at least this scope."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise RequestError(
                403, f"this needs a token of scope {scope}; this one has {self.scope}", "Forbidden"
            )


EVERYBODY: Final = Caller(ANONYMOUS)
"""The caller where no token is needed."""

NOBODY: Final = Caller("", "read")
"""The caller who has shown no token where one is needed elsewhere; sees nothing of anybody."""


def caller_of(request: HTTPConnection) -> Caller:
    """Who sent this request, as the guard has found."""
    return cast(Caller, request.state.caller)
