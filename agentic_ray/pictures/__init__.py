"""Pictures of work: a timeline, the memory it held, its graph. Data in, SVG, HTML or JSON out.

Pure: nothing here runs work, asks a cluster or knows where the data comes from.
"""

from agentic_ray.pictures.graphs import Arrow, Box, Drawing, draw
from agentic_ray.pictures.held import HeldBytes
from agentic_ray.pictures.spans import Span
from agentic_ray.pictures.timeline import Timeline

__all__ = ["Arrow", "Box", "Drawing", "HeldBytes", "Span", "Timeline", "draw"]
