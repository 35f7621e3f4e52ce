"""The HTTP edge: service and client. The server side is loaded only by who serves.

`create_app` is in ``service.http``, `serve` in ``service.server``.
"""

from agentic_ray.service.async_client import AsyncClient
from agentic_ray.service.client import Client

__all__ = ["AsyncClient", "Client"]
