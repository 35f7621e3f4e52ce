"""Distributions of several numbers that belong together."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.core import evaluate
from agentic_ray.array.core.build import broadcast_shapes, strict_operand
from agentic_ray.array.core.node import NDArray
from agentic_ray.array.creation import shape_of
from agentic_ray.array.linalg.products import matmul
from agentic_ray.array.outputs import looked_at
from agentic_ray.array.random.distributions import Distributions
from agentic_ray.array.random.drawing import _cut, _probe, _shape_for, items
from agentic_ray.array.random.streams import as_parameter, drawn_with


def _held(value: Any) -> NDArray:
    """Return small parameters as NumPy's array."""
    return evaluate.value(strict_operand(value))


class Multivariate(Distributions):
    """Methods that draw several numbers at once, along the last axis of the result."""

    def multivariate_normal(
        self,
        mean: Any,
        cov: Any,
        size: Any = None,
        check_valid: Literal["warn", "raise", "ignore"] = "warn",
        tol: float = 1e-8,
        *,
        method: Literal["svd", "eigh", "cholesky"] = "svd",
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw normal vectors with these means and covariances.

        Parameters
        ----------
        mean : array_like, (d,)
        cov : array_like, (d, d)
            Covariances; brought to the caller and factored there.
        size : int or tuple of int, optional
            Number of vectors.
        check_valid : {"warn", "raise", "ignore"}
            Reaction if ``cov`` is not positive semidefinite.
        tol : float
        method : {"svd", "eigh", "cholesky"}

        Raises
        ------
        ValueError
            Shapes do not fit.
        """
        centre, spread = _held(mean), _held(cov)
        _probe.multivariate_normal(centre, spread, 1, check_valid, tol, method=method)
        if method == "svd":
            left, scale, _ = np.linalg.svd(spread)
            factor = left * np.sqrt(scale)
        elif method == "eigh":
            scale, vectors = np.linalg.eigh(spread)
            factor = vectors * np.sqrt(np.maximum(scale, 0))
        else:
            factor = np.linalg.cholesky(spread)
        shape = () if size is None else shape_of(size)
        plain = self.standard_normal((*shape, centre.size), chunks=_leading(chunks, len(shape)),
                                     device=device)  # fmt: skip
        result: Array = matmul(plain, Array(strict_operand(factor.T.copy()))) + centre
        return result

    def multinomial(
        self,
        n: Any,
        pvals: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw how often each of several outcomes occurs in ``n`` trials.

        Parameters
        ----------
        n : int or array_like of int
        pvals : array_like
            Probabilities along the last axis.
        size : int or tuple of int, optional
        """
        counts, shares = strict_operand(n), strict_operand(pvals)
        if shares.ndim == 0:
            raise TypeError("object of type 'float' has no len()")
        item = (shares.shape[-1],)
        dtype = np.dtype(np.int64)
        if counts.ndim == 0 and shares.ndim == 1:
            held = _held(pvals)
            number = int(_held(n))
            _probe.multinomial(number, held, 1)
            args = (number, as_parameter(held.astype(np.float64)))
            return items(self, "multinomial", args, size, item, dtype, chunks, device)
        spread = broadcast_shapes([counts.shape, shares.shape[:-1]], "multinomial")
        shape = _shape_for(spread, size)
        made = drawn_with(self._key(), "multinomial", [counts, shares], [0, 1], (), shape, item,
                          dtype)  # fmt: skip
        return _cut(looked_at(Array(made)), chunks, device)

    def dirichlet(
        self, alpha: Any, size: Any = None, *, chunks: Any = "auto", device: str | None = None
    ) -> Array:
        """Draw shares that add up to 1, Dirichlet distributed with parameters ``alpha``."""
        held = _held(alpha)
        _probe.dirichlet(held, 1)
        args = (as_parameter(held.astype(np.float64)),)
        item = (held.size,)
        return items(self, "dirichlet", args, size, item, np.dtype(np.float64), chunks, device)

    def multivariate_hypergeometric(
        self,
        colors: Any,
        nsample: int,
        size: Any = None,
        method: Literal["marginals", "count"] = "marginals",
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw how many items of each color are among ``nsample`` that are taken.

        Parameters
        ----------
        colors : sequence of int
            Number of items of each color.
        nsample : int
        size : int or tuple of int, optional
        method : {"marginals", "count"}
        """
        held = _held(colors)
        _probe.multivariate_hypergeometric(held, nsample, 1, method)
        args = (as_parameter(held), int(nsample))
        return items(self, "multivariate_hypergeometric", args, size, (held.size,),
                     np.dtype(np.int64), chunks, device, (("method", method),))  # fmt: skip


def _leading(chunks: Any, count: int) -> Any:
    """Return the chunks of the axes of draws, with the axis of a vector in one piece."""
    if isinstance(chunks, tuple):
        return (*chunks[:count], -1)
    return (*[chunks] * count, -1)
