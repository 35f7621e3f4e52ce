"""Cases for `test_portable_kernels`: ufuncs beyond the standard, selections, differences, signals,
histograms and correlations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import agentic_ray.array as xp
from agentic_ray.array import describing, dtypes

Case = Callable[[Any], Any]


def _of(name: str, *operands: str, **options: Any) -> Case:
    function = getattr(xp, name)
    return lambda d: function(*[getattr(d, operand) for operand in operands], **options)


CASES: dict[str, list[Case]] = {
    **{name: [_of(name, "x")] for name in str.split(
    """
    around degrees fix i0 isneginf isposinf isreal modf radians rint sinc spacing amax amin
    ptp gradient trapezoid unwrap ediff1d angle
    """
)},
    "frexp": [_of("frexp", "x")],
    "real_if_close": [lambda d: xp.real_if_close(d.z) + 0],
    "iscomplex": [_of("iscomplex", "z")],
    "angle": [_of("angle", "z"), _of("angle", "x", deg=True)],
    "bitwise_count": [_of("bitwise_count", "i")],
    **{name: [_of(name, "x", "y")] for name in ("divmod", "heaviside", "logaddexp2")},
    "float_power": [_of("float_power", "above", "x")],
    "gcd": [_of("gcd", "i", "j")],
    "lcm": [_of("lcm", "i", "i")],
    "ldexp": [_of("ldexp", "x", "j")],
    "allclose": [_of("allclose", "x", "x")],
    "array_equal": [_of("array_equal", "x", "y"), _of("array_equal", "holes", "holes",
                                                       equal_nan=True)],
    "array_equiv": [_of("array_equiv", "x", "row")],
    "select": [lambda d: xp.select([d.b, d.c], [d.x, d.y], 2.0)],
    "choose": [lambda d: xp.choose(d.j, [d.x, d.y, d.row, d.x, d.y])],
    "nancumsum": [_of("nancumsum", "holes", axis=0)],
    "nancumprod": [_of("nancumprod", "holes", axis=1)],
    "convolve": [lambda d: xp.convolve(d.v, d.w[:4]), lambda d: xp.convolve(d.v, d.w[:5], "same")],
    "correlate": [lambda d: xp.correlate(d.v, d.w[:4], "full")],
    "interp": [lambda d: xp.interp(d.x, d.stairs, d.v)],
    "cross": [_of("cross", "triples", "triples2")],
    "corrcoef": [_of("corrcoef", "wide"), _of("corrcoef", "v", "w")],
    "histogram_bin_edges": [lambda d: xp.histogram_bin_edges(d.v, "fd") * 1],
    "histogram2d": [_of("histogram2d", "v", "w", bins=3)],
    "histogramdd": [_of("histogramdd", "triples", bins=2),
                    lambda d: xp.histogramdd(d.triples, 2, weights=d.x[:, 0])],
}  # fmt: skip
_DRAWS: dict[str, tuple[Any, ...]] = {
    "beta": (2.0, 3.0), "chisquare": (3.0,), "f": (3.0, 4.0), "geometric": (0.3,),
    "gumbel": (), "hypergeometric": (9, 6, 5), "laplace": (), "logistic": (), "lognormal": (),
    "logseries": (0.4,), "negative_binomial": (5, 0.4), "noncentral_chisquare": (3.0, 2.0),
    "noncentral_f": (3.0, 9.0, 2.0), "pareto": (3.0,), "power": (3.0,), "rayleigh": (),
    "standard_cauchy": (), "standard_exponential": (), "standard_gamma": (2.0,),
    "standard_t": (5.0,), "triangular": (0.0, 1.0, 3.0), "vonmises": (0.5, 2.0),
    "wald": (2.0, 3.0), "weibull": (2.0,), "zipf": (3.0,), "multinomial": (9, [0.2, 0.8]),
    "dirichlet": ([1.0, 2.0],), "multivariate_hypergeometric": ([3, 4], 5),
    "multivariate_normal": ([0.0, 1.0], [[2.0, 1.0], [1.0, 2.0]]),
}  # fmt: skip


def _draw(name: str, args: tuple[Any, ...]) -> Case:
    return lambda d: getattr(xp.random.default_rng(1), name)(*args, size=9, chunks=4)


def _shuffled(d: Any) -> Any:
    x = d.x + 0
    xp.random.default_rng(2).shuffle(x)
    return x


for _name, _args in _DRAWS.items():
    CASES[f"random.{_name}"] = [_draw(_name, _args)]
CASES["random.shuffle"] = [_shuffled]
CASES["random.permuted"] = [lambda d: xp.random.default_rng(2).permuted(d.x, axis=1)]
CASES["random.choice"] = [
    lambda d: xp.random.default_rng(2).choice(4, 9, p=[0.1, 0.2, 0.3, 0.4], chunks=4)
]
CASES["add"] = [
    lambda d: xp.add(d.x, d.y, where=d.b),
    lambda d: xp.subtract.reduce(d.x, axis=1),
    lambda d: xp.hypot.reduce(d.x, axis=0),
    lambda d: xp.subtract.accumulate(d.x, axis=0),
    lambda d: xp.maximum.accumulate(d.x, axis=1),
    lambda d: xp.fmax.reduce(d.holes, axis=0),
]
CASES["nanmean"] = [
    lambda d: xp.sum(d.x, axis=0, where=d.b, initial=2.0),
    lambda d: xp.mean(d.x, axis=1, where=d.b),
    lambda d: xp.var(d.x, axis=0, where=d.b, ddof=1),
    lambda d: xp.max(d.x, where=d.b, initial=-1.0),
    lambda d: xp.average(d.x, axis=0, weights=d.above),
]

NO_KERNELS = [
    "iscomplexobj", "isrealobj", "isnat", "euler_gamma", "random.bytes", "random.bit_generator",
    *describing.__all__,
    *[name for name in dtypes.__all__ if name != "astype"],
]  # fmt: skip
"""They compute nothing, or only dates, which are not for GPUs."""

NOT_IN_STANDARD = str.split(
    """
    allclose bitwise_count choose convolve correlate degrees divmod float_power frexp gcd
    heaviside histogram2d histogram_bin_edges histogramdd i0 interp iscomplex isneginf
    isposinf isreal lcm ldexp logaddexp2 modf radians rint sinc angle nanmax nanmin
    random.shuffle
    """
)
