"""`ServedMaster`: what the service stands before."""

from __future__ import annotations

from typing import TypeAlias

from agentic_ray.master import Master
from agentic_ray.master.distant import DistantMaster

ServedMaster: TypeAlias = Master | DistantMaster
"""A master of this process, or one that runs elsewhere in the cluster."""
