"""Distributions of one number: the methods of a `Generator` that draw them.

Each takes NumPy's parameters, which may be arrays, and ``size``; then ``chunks`` and ``device`` of
the result, as creation functions do. Values out of range raise NumPy's ValueError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from agentic_ray.array.array_object import Array
from agentic_ray.array.random.drawing import Drawing


class Distributions(Drawing):
    """Methods that draw single numbers."""

    def random(
        self,
        size: Any = None,
        dtype: Any = np.float64,
        out: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Any:
        """Draw uniform numbers in [0, 1)."""
        return self._filled("random", (), size, dtype, out, chunks, device)

    def standard_normal(
        self,
        size: Any = None,
        dtype: Any = np.float64,
        out: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Any:
        """Draw normal numbers with mean 0 and standard deviation 1."""
        return self._filled("standard_normal", (), size, dtype, out, chunks, device)

    def standard_exponential(
        self,
        size: Any = None,
        dtype: Any = np.float64,
        method: str = "zig",
        out: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Any:
        """Draw exponentially distributed numbers with mean 1, by Ziggurat or inversion
        (``"inv"``)."""
        options = (("method", method),)
        return self._filled("standard_exponential", (), size, dtype, out, chunks, device, options)

    def standard_gamma(
        self,
        shape: Any,
        size: Any = None,
        dtype: Any = np.float64,
        out: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Any:
        """Draw gamma distributed numbers of scale 1."""
        return self._filled("standard_gamma", (shape,), size, dtype, out, chunks, device)

    def integers(
        self,
        low: Any,
        high: Any = None,
        size: Any = None,
        dtype: Any = np.int64,
        endpoint: bool = False,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw integers in [low, high), or up to ``high`` with ``endpoint``; in [0, low) without
        ``high``.

        Raises
        ------
        ValueError
            There is no integer in the range.
        """
        low, high = (0, low) if high is None else (low, high)
        wanted = np.dtype(dtype)
        options = (("dtype", wanted.type),)
        if endpoint:
            options = (*options, ("endpoint", True))  # type: ignore[assignment]
        return self._draw("integers", (low, high), size, chunks, device, options, wanted)

    def beta(
        self,
        a: Any,
        b: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw beta distributed numbers, between 0 and 1."""
        return self._draw("beta", (a, b), size, chunks, device)

    def binomial(
        self,
        n: Any,
        p: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw the number of successes in ``n`` trials that succeed with probability ``p``."""
        return self._draw("binomial", (n, p), size, chunks, device)

    def chisquare(
        self,
        df: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw chi-square distributed numbers with ``df`` degrees of freedom."""
        return self._draw("chisquare", (df,), size, chunks, device)

    def exponential(
        self,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw exponentially distributed numbers with mean ``scale``."""
        return self._draw("exponential", (scale,), size, chunks, device)

    def f(
        self,
        dfnum: Any,
        dfden: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw F distributed numbers with these degrees of freedom."""
        return self._draw("f", (dfnum, dfden), size, chunks, device)

    def gamma(
        self,
        shape: Any,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw gamma distributed numbers with mean ``shape * scale``."""
        return self._draw("gamma", (shape, scale), size, chunks, device)

    def geometric(
        self,
        p: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw the number of trials up to the first success, with probability ``p`` each."""
        return self._draw("geometric", (p,), size, chunks, device)

    def gumbel(
        self,
        loc: Any = 0.0,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Gumbel distributed numbers: of largest values."""
        return self._draw("gumbel", (loc, scale), size, chunks, device)

    def hypergeometric(
        self,
        ngood: Any,
        nbad: Any,
        nsample: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw the number of good items among ``nsample`` taken from good and bad ones."""
        return self._draw("hypergeometric", (ngood, nbad, nsample), size, chunks, device)

    def laplace(
        self,
        loc: Any = 0.0,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Laplace distributed numbers around ``loc``."""
        return self._draw("laplace", (loc, scale), size, chunks, device)

    def logistic(
        self,
        loc: Any = 0.0,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw logistically distributed numbers around ``loc``."""
        return self._draw("logistic", (loc, scale), size, chunks, device)

    def lognormal(
        self,
        mean: Any = 0.0,
        sigma: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw numbers whose logarithm is normal, with this mean and deviation."""
        return self._draw("lognormal", (mean, sigma), size, chunks, device)

    def logseries(
        self,
        p: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw logarithmic series distributed integers, from 1 on."""
        return self._draw("logseries", (p,), size, chunks, device)

    def negative_binomial(
        self,
        n: Any,
        p: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw the number of failures before ``n`` trials succeed, with probability ``p`` each."""
        return self._draw("negative_binomial", (n, p), size, chunks, device)

    def noncentral_chisquare(
        self,
        df: Any,
        nonc: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw noncentral chi-square distributed numbers."""
        return self._draw("noncentral_chisquare", (df, nonc), size, chunks, device)

    def noncentral_f(
        self,
        dfnum: Any,
        dfden: Any,
        nonc: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw noncentral F distributed numbers."""
        return self._draw("noncentral_f", (dfnum, dfden, nonc), size, chunks, device)

    def normal(
        self,
        loc: Any = 0.0,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw normal numbers with mean ``loc`` and standard deviation ``scale``."""
        return self._draw("normal", (loc, scale), size, chunks, device)

    def pareto(
        self,
        a: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Pareto II (Lomax) distributed numbers of shape ``a``."""
        return self._draw("pareto", (a,), size, chunks, device)

    def poisson(
        self,
        lam: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Poisson distributed integers with mean ``lam``."""
        return self._draw("poisson", (lam,), size, chunks, device)

    def power(
        self,
        a: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw numbers between 0 and 1 whose density is a power, ``a - 1``."""
        return self._draw("power", (a,), size, chunks, device)

    def rayleigh(
        self,
        scale: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Rayleigh distributed numbers."""
        return self._draw("rayleigh", (scale,), size, chunks, device)

    def standard_cauchy(
        self,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Cauchy distributed numbers around 0."""
        return self._draw("standard_cauchy", (), size, chunks, device)

    def standard_t(
        self,
        df: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Student's t distributed numbers with ``df`` degrees of freedom."""
        return self._draw("standard_t", (df,), size, chunks, device)

    def triangular(
        self,
        left: Any,
        mode: Any,
        right: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw numbers between ``left`` and ``right``, of which ``mode`` is the most likely."""
        return self._draw("triangular", (left, mode, right), size, chunks, device)

    def uniform(
        self,
        low: Any = 0.0,
        high: Any = 1.0,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw uniform numbers in [low, high)."""
        return self._draw("uniform", (low, high), size, chunks, device)

    def vonmises(
        self,
        mu: Any,
        kappa: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw angles around ``mu`` in [-pi, pi]."""
        return self._draw("vonmises", (mu, kappa), size, chunks, device)

    def wald(
        self,
        mean: Any,
        scale: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Wald (inverse Gaussian) distributed numbers."""
        return self._draw("wald", (mean, scale), size, chunks, device)

    def weibull(
        self,
        a: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Weibull distributed numbers of shape ``a``."""
        return self._draw("weibull", (a,), size, chunks, device)

    def zipf(
        self,
        a: Any,
        size: Any = None,
        *,
        chunks: Any = "auto",
        device: str | None = None,
    ) -> Array:
        """Draw Zipf distributed integers, from 1 on."""
        return self._draw("zipf", (a,), size, chunks, device)
