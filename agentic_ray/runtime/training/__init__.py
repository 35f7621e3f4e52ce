"""Ray Train on leased nodes and cards: starts the workers of a training and hears of them.

PyTorch is imported in the processes of a training only (`placed`).
"""

from agentic_ray.runtime.training.desk import News
from agentic_ray.runtime.training.link import Link
from agentic_ray.runtime.training.run import Fitting, Group, Storage, begin_training

__all__ = ["Fitting", "Group", "Link", "News", "Storage", "begin_training"]
