"""Functions of any framework in processes of their own: the call, the process, the pool of a card.

``call`` is what a process does for one batch, ``child`` the program of a process on a GPU,
``nursery`` the process that these are forked off, ``pool`` the processes of one card, ``carry`` a
bundle on its way through such a pool, and ``shortage`` recognises the errors of frameworks that say
that memory did not suffice.
"""

from agentic_ray.runtime.functions.call import FunctionCall

__all__ = ["FunctionCall"]
