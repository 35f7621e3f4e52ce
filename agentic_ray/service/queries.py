"""Refuses names in a query that nobody reads: a filter that is misspelt would filter nothing."""

from __future__ import annotations

from collections import Counter
from typing import Final

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic.fields import FieldInfo

from agentic_ray.master.jsonvalues import cut_name
from agentic_ray.service.bodies import RequestError

_PROBED: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Addresses that monitors ask with names of their own."""


async def check_query(request: Request) -> None:
    """Check the names in a request's query.

    Raises
    ------
    RequestError
        422: the route has no parameter of this name, or a parameter that takes one value is there
        twice.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not route.include_in_schema or route.path in _PROBED:
        return  # (the page keeps what it shows in its own address)
    known: dict[str, FieldInfo] = {
        field.alias: field.field_info
        for field in get_flat_params(route.dependant)
        if isinstance(field.field_info, Query)
    }
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if name not in known:
            takes = ", ".join(known) or "none"
            raise RequestError(
                422, f"query: there is no parameter {cut_name(name)}; there are: {takes}"
            )
        if times > 1 and "list" not in str(known[name].annotation):
            raise RequestError(422, f"query: {name} is there {times} times and takes one value")
