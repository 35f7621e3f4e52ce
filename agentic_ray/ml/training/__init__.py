"""Training of PyTorch models on several workers, by Ray Train on leased CPUs and cards.

`Worker` is imported from ``agentic_ray.ml.training.worker``; that imports PyTorch.
"""

from agentic_ray.ml.training.front import Training, train

__all__ = ["Training", "train"]
