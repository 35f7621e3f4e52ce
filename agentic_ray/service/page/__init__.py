"""The page of the service, and what it asks for beyond the API: events, telemetry, traces of jobs.

The page's sources are in ``web/`` at the root of the repository; ``make web`` builds them into
``static``. `add_page` registers the routes.
"""

from agentic_ray.service.page.routes import Page, add_page

__all__ = ["Page", "add_page"]
