"""The methods of `Generator`: shapes, dtypes and exceptions. Values are ours, not NumPy's: how they
are distributed is tested in ``test_random.py``."""

_ARGS = {
    "beta": "2.0, 3.0",
    "binomial": "9, 0.3",
    "chisquare": "3.0",
    "exponential": "2.0",
    "f": "3.0, 4.0",
    "gamma": "2.0, 1.5",
    "geometric": "0.3",
    "gumbel": "1.0, 2.0",
    "hypergeometric": "9, 6, 5",
    "laplace": "1.0, 2.0",
    "logistic": "1.0, 2.0",
    "lognormal": "1.0, 0.5",
    "logseries": "0.4",
    "negative_binomial": "5, 0.4",
    "noncentral_chisquare": "3.0, 2.0",
    "noncentral_f": "3.0, 9.0, 2.0",
    "normal": "1.0, 2.0",
    "pareto": "3.0",
    "poisson": "3.0",
    "power": "3.0",
    "rayleigh": "2.0",
    "standard_cauchy": "",
    "standard_exponential": "",
    "standard_gamma": "2.0",
    "standard_normal": "",
    "standard_t": "5.0",
    "triangular": "0.0, 1.0, 3.0",
    "uniform": "-1.0, 2.0",
    "vonmises": "0.5, 2.0",
    "wald": "2.0, 3.0",
    "weibull": "2.0",
    "zipf": "3.0",
    "integers": "3, 9",
    "random": "",
}
_BAD = {
    "beta": "-1, 2",
    "binomial": "-1, 0.3",
    "chisquare": "-1",
    "exponential": "-1",
    "f": "0, 1",
    "gamma": "-1",
    "geometric": "2",
    "gumbel": "0, -1",
    "hypergeometric": "1, 1, 9",
    "laplace": "0, -1",
    "logistic": "0, -1",
    "lognormal": "0, -1",
    "logseries": "2",
    "negative_binomial": "-1, 0.5",
    "noncentral_chisquare": "-1, 1",
    "noncentral_f": "-1, 1, 1",
    "normal": "0, -1",
    "pareto": "-1",
    "poisson": "-1",
    "power": "-1",
    "rayleigh": "-1",
    "standard_gamma": "-1",
    "standard_t": "-1",
    "triangular": "3, 2, 1",
    "uniform": "0, numpy.inf",
    "vonmises": "0, -1",
    "wald": "-1, 1",
    "weibull": "-1",
    "zipf": "0.5",
    "integers": "5, 5",
    "standard_cauchy": "(-1,)",
    "standard_normal": "(-1,)",
    "random": "(-1,)",
    "standard_exponential": "(-1,)",
}
_G = "np.random.default_rng(0)"

_LINES: list[str] = []
for _name, _args in _ARGS.items():
    _sep = ", " if _args else ""
    _LINES += [
        f"A = {_G}.{_name}({_args}{_sep}size=(3, 4)); A.shape, A.dtype",
        f"A = {_G}.{_name}({_args}{_sep}size=5); A.shape, A.dtype",
        f"numpy.shape({_G}.{_name}({_args}))",
        f"A = {_G}.{_name}({_args}{_sep}size=0); A.shape, A.dtype",
        f"{_G}.{_name}({_BAD[_name]})",
        f"{_G}.{_name}({_args}{_sep}size=-1)",
    ]
    if _args:
        _first, *_rest = _args.split(", ")
        _tail = "".join(f", {arg}" for arg in _rest)
        _LINES += [
            f"A = {_G}.{_name}([{_first}, {_first}, {_first}]{_tail}); A.shape, A.dtype",
            f"A = {_G}.{_name}(np.asarray([[{_first}], [{_first}]]){_tail}, size=(2, 3)); A.shape",
            f"{_G}.{_name}([{_first}, {_first}]{_tail}, size=3)",
        ]

FORMS = (
    "\n".join(_LINES)
    + """
A = np.random.default_rng(0).normal(X, abs(Y)); A.shape, A.dtype
np.random.default_rng(0).normal(X, Y)
np.random.default_rng(0).normal(X, V)
np.random.default_rng(0).normal(0, [1, -1])
A = np.random.default_rng(0).binomial([5, 6], 0.5, (3, 2)); A.shape, A.dtype
A = np.random.default_rng(0).uniform([0, 1], [1, 2]); A.shape
A = np.random.default_rng(0).random(5, "f4"); A.dtype
A = np.random.default_rng(0).random(dtype="float32"); numpy.shape(A)
np.random.default_rng(0).random(5, dtype=int)
A = np.random.default_rng(0).standard_normal(5, dtype="f4"); A.dtype
A = np.random.default_rng(0).standard_gamma(2.0, 5, "f4"); A.dtype
A = np.random.default_rng(0).standard_exponential(5, "f4", "inv"); A.dtype
np.random.default_rng(0).standard_exponential(5, method="nope").shape
A = np.random.default_rng(0).random(out=X); A.shape, A is X
A = np.random.default_rng(0).standard_normal(out=X); (X == A).all()
np.random.default_rng(0).random(5, out=X)
np.random.default_rng(0).random(out=F)
np.random.default_rng(0).random((4, 6), "f4", F).dtype
A = np.random.default_rng(0).integers(5, size=(2, 3)); A.shape, A.dtype
A = np.random.default_rng(0).integers(0, 5, 4, "uint8"); A.dtype
A = np.random.default_rng(0).integers(0, 5, 4, dtype="int32", endpoint=True); A.dtype
np.random.default_rng(0).integers(5, 5, endpoint=True)
np.random.default_rng(0).integers(0, 300, dtype="uint8")
np.random.default_rng(0).integers(0, 1, 5)
A = np.random.default_rng(0).integers([0, 5], [5, 9]); A.shape, A.dtype
A = np.random.default_rng(0).integers([3, 4, 5], size=(2, 3), dtype="i2"); A.shape, A.dtype
A = np.random.default_rng(0).integers(0, 2, 5, bool); A.dtype
np.random.default_rng(0).integers([0, 9], [5, 9])
np.random.default_rng(0).integers(0, 2**63, 4).dtype
np.random.default_rng(0).integers(0, 2**64, 4, "uint64").dtype
A = np.random.default_rng(0).multinomial(9, [0.2, 0.3, 0.5]); A.shape, A.dtype, A.sum()
A = np.random.default_rng(0).multinomial(9, [0.2, 0.8], size=(3, 4)); A.shape, A.sum(axis=-1)
A = np.random.default_rng(0).multinomial([9, 5], [0.2, 0.8]); A.sum(axis=-1)
A = np.random.default_rng(0).multinomial([[9], [5]], [[0.2, 0.8], [0.5, 0.5]], (2, 2)); A.sum(-1)
np.random.default_rng(0).multinomial(9, [0.9, 0.9])
np.random.default_rng(0).multinomial(-1, [0.5, 0.5])
A = np.random.default_rng(0).dirichlet([1.0, 2.0, 3.0], 4); A.shape, A.dtype, A.sum(axis=1)
A = np.random.default_rng(0).dirichlet((1, 2)); A.shape, A.sum()
np.random.default_rng(0).dirichlet([-1, 2])
A = np.random.default_rng(0).multivariate_hypergeometric([3, 4, 5], 6, 4); A.dtype, A.sum(axis=1)
A = np.random.default_rng(0).multivariate_hypergeometric([3, 4, 5], 6, method="count"); A.sum()
np.random.default_rng(0).multivariate_hypergeometric([3, 4], 9)
A = np.random.default_rng(0).multivariate_normal([0, 1], [[1, 0], [0, 2]]); A.shape, A.dtype
A = np.random.default_rng(0).multivariate_normal([0, 1], [[1, 0], [0, 2]], (3, 4)); A.shape
np.random.default_rng(0).multivariate_normal([0, 1], D[:2, :2], 3, "raise", 1e-9).shape
np.random.default_rng(0).multivariate_normal([0, 1], D[:2, :2], method="cholesky").shape
A = np.random.default_rng(0).multivariate_normal(V[:5], D, 3, method="eigh"); A.shape
np.random.default_rng(0).multivariate_normal([0, 1], [[1, 2], [2, 1]], check_valid="raise")
np.random.default_rng(0).multivariate_normal([0, 1, 2], [[1, 0], [0, 1]])
np.random.default_rng(0).multivariate_normal([[0, 1]], [[1, 0], [0, 1]])
np.sort(np.random.default_rng(0).permutation(5))
np.sort(np.random.default_rng(0).permutation(V)) - S * 0
np.sort(np.random.default_rng(0).permutation(X), axis=0).shape
A = np.random.default_rng(0).permutation(X, axis=1); np.sort(A, axis=1)
np.random.default_rng(0).permutation(2.5)
np.random.default_rng(0).permutation(X, 5)
np.sort(np.random.default_rng(0).permutation([3, 1, 2]))
np.random.default_rng(0).permutation(0).shape
A = X.copy(); np.random.default_rng(0).shuffle(X); np.sort(X, axis=0)
np.random.default_rng(0).shuffle(X); np.sort(X.sum(axis=1))
np.random.default_rng(0).shuffle(X, axis=1); np.sort(X.sum(axis=0))
np.random.default_rng(0).shuffle(X, 1); np.sort(X, axis=1)
np.random.default_rng(0).shuffle(V); np.sort(V)
A = [1, 2, 3]; np.random.default_rng(0).shuffle(A); sorted(A)
np.random.default_rng(0).shuffle(X, axis=5)
np.random.default_rng(0).shuffle(V)
A = np.random.default_rng(0).permuted(X); np.sort(A.ravel())
A = np.random.default_rng(0).permuted(X, axis=1); np.sort(A, axis=1)
A = np.random.default_rng(0).permuted(X, axis=0, out=X); np.sort(X, axis=0), A is X
np.random.default_rng(0).permuted(X, axis=4)
A = np.random.default_rng(0).choice(5); numpy.shape(A)
A = np.random.default_rng(0).choice(5, 3); A.shape, A.dtype
A = np.random.default_rng(0).choice(V, (2, 3)); A.shape, A.dtype
A = np.random.default_rng(0).choice(X, 2, axis=1); A.shape
A = np.random.default_rng(0).choice(X, 3, False); A.shape
A = np.random.default_rng(0).choice(12, 12, replace=False); np.sort(A)
np.random.default_rng(0).choice(3, 5, replace=False)
np.random.default_rng(0).choice(3, 5, p=[0, 1, 0])
np.random.default_rng(0).choice([7, 8, 9], 4, True, [0, 0, 1.0])
np.sort(np.random.default_rng(0).choice(3, 2, replace=False, p=[0.5, 0.5, 0]))
np.random.default_rng(0).choice(3, 3, replace=False, p=[0.5, 0.5, 0])
np.random.default_rng(0).choice(3, 2, p=[0.5, 0.4, 0.3])
np.random.default_rng(0).choice(3, 2, p=[0.5, 0.5])
np.random.default_rng(0).choice(3, 2, p=[1.5, -0.5, 0])
np.random.default_rng(0).choice(0, 2)
np.random.default_rng(0).choice([], 2)
np.random.default_rng(0).choice(-3, 2)
np.random.default_rng(0).choice(2.5, 2)
A = np.random.default_rng(0).choice(9, 4, replace=False, shuffle=False); A.shape
len(np.random.default_rng(0).bytes(10))
len(np.random.default_rng(0).spawn(3))
np.random.default_rng(0).bit_generator.__class__.__mro__[1].__name__
np.random.default_rng(np.random.SeedSequence(3)).random(3).shape
np.random.default_rng([1, 2]).random(3).shape
A = np.random.default_rng(3); np.random.default_rng(A) is A
np.random.default_rng(-1)
numpy.random.default_rng(0).shuffle(V); np.sort(V)
numpy.random.default_rng(0).shuffle(X); X
numpy.random.default_rng(0).shuffle(T); np.sort(T, axis=0)
numpy.random.default_rng(0).permutation(X).shape
numpy.random.default_rng(0).choice(X, 2).shape
numpy.random.default_rng(0).normal(X).shape
"""
)

_MEMORY = "NumPy's generator writes to the memory of NumPy's arrays: it refuses others"
DIFFERENT = {
    f"protocol: {form}": _MEMORY
    for form in (
        "A = np.random.default_rng(0).random(out=X); A.shape, A is X",
        "A = np.random.default_rng(0).standard_normal(out=X); (X == A).all()",
        "np.random.default_rng(0).random(out=F)",
        'np.random.default_rng(0).random((4, 6), "f4", F).dtype',
        "np.random.default_rng(0).shuffle(X, axis=1); np.sort(X.sum(axis=0))",
        "np.random.default_rng(0).shuffle(X, 1); np.sort(X, axis=1)",
        "np.random.default_rng(0).shuffle(X, axis=5)",
        "A = np.random.default_rng(0).permuted(X, axis=0, out=X); np.sort(X, axis=0), A is X",
    )
}
