"""Ufuncs, called and by their methods, and the elementwise functions that are none."""

_REAL = str.split(
    """
    absolute fabs negative positive sign exp exp2 expm1 sin cos tan sinh cosh tanh arctan
    arcsinh cbrt square deg2rad degrees rad2deg radians rint floor ceil trunc isfinite isinf
    isnan signbit logical_not conjugate conj reciprocal spacing abs atan asinh
    """
)
_POSITIVE = str.split(
    """
    sqrt log log2 log10 log1p arccos arcsin arctanh acos asin atanh
    """
)
_COMPLEX = str.split(
    """
    absolute negative positive sign exp exp2 expm1 sin cos tan sinh cosh tanh arctan arcsinh
    square isfinite isinf isnan logical_not conjugate reciprocal sqrt log log2 log10 log1p
    arccos arcsin arctanh arccosh rint
    """
)
_TWO = str.split(
    """
    add subtract multiply divide true_divide floor_divide remainder mod fmod power
    float_power arctan2 hypot logaddexp logaddexp2 maximum minimum fmax fmin copysign
    nextafter heaviside equal not_equal less less_equal greater greater_equal logical_and
    logical_or logical_xor divmod atan2 pow
    """
)
_INTEGERS = str.split(
    """
    bitwise_and bitwise_or bitwise_xor gcd lcm add floor_divide remainder maximum power
    divmod fmod true_divide subtract equal
    """
)

_LINES: list[str] = []
for _name in _REAL:
    _LINES += [f"np.{_name}({x})" for x in ("X", "F", "I", "Z", "E")]
for _name in _POSITIVE:
    _LINES += [f"np.{_name}({x})" for x in ("P", "P.astype('f4')", "B", "[0.25, 0.5]", "0.5", "X")]
for _name in _COMPLEX:
    _LINES += [f"np.{_name}(C)", f"np.{_name}(C.astype('c8'))"]
for _name in _TWO:
    _LINES += [
        f"np.{_name}(X, Y)", f"np.{_name}(X, 2)", f"np.{_name}(I, X)", f"np.{_name}(F, 2.5)",
        f"np.{_name}([1, 2, 3], [3, 1, 2])", f"np.{_name}(X, V[:6])",
    ]  # fmt: skip
for _name in _INTEGERS:
    _LINES += [f"np.{_name}(I, U)", f"np.{_name}(I, 3)", f"np.{_name}(U, U.T[:6, :4].T)"]
for _name in ("left_shift", "right_shift", "bitwise_left_shift", "bitwise_right_shift"):
    _LINES += [f"np.{_name}(U, 1)", f"np.{_name}([1, 2], [1, 3])", f"np.{_name}(X, 1)"]
for _name in ("invert", "bitwise_not", "bitwise_invert", "bitwise_count"):
    _LINES += [f"np.{_name}({x})" for x in ("I", "U", "B", "X")]
for _name in ("modf", "frexp"):
    _LINES += [f"np.{_name}({x})" for x in ("X", "F", "I", "2.5", "C")]
_LINES += [
    f"np.{name}.{method}"
    for name in ("add", "subtract", "maximum", "logical_and", "divide", "bitwise_xor", "hypot",
                 "fmin", "remainder", "equal", "gcd", "floor_divide")
    for method in (
        "reduce(X)", "reduce(X, axis=1)", "reduce(I, 0)", "reduce(X, axis=None)",
        "reduce(X, axis=(0, 1))", "reduce(X, keepdims=True)", "reduce(E)", "reduce(B)",
        "reduce(I, dtype=float)", "accumulate(X)", "accumulate(I, axis=1)", "accumulate(V)",
        "reduceat(V, [0, 3, 7])", "reduceat(X, [0, 2], axis=1)", "reduceat(V, [4, 1, 6, 6])",
        "outer(V, W)", "outer([1, 2], [3, 4])", "outer(X, V)",
    )
]  # fmt: skip

FORMS = (
    "\n".join(dict.fromkeys(_LINES))
    + """
np.add(X, Y, out=X); X
np.add(X, Y, X); X
np.add(X, Y, out=(X,)); X
np.add(I, X, out=I)
np.add(I, X, out=I, where=B)
np.divmod(X, Y, out=(X, I))
np.greater(X, Y, out=I); I
np.add(I, X, out=I, casting="unsafe"); I
np.add(X, 1, out=F); F
np.add(X, 1, out=V)
np.add(1, 2, out=V); V
np.add(V[:6], 1, out=X); X
np.add(X, Y, out=numpy.zeros((4, 6)))
np.add(X, Y, out=3)
np.add(X, Y, where=B, out=X); X
np.add(I, U, where=B, out=I); I
np.divide(X, I, where=(I != 0), out=np.zeros((4, 6)))
np.sqrt(X, where=(X > 0), out=np.ones((4, 6)))
np.add(X, Y, where=True)
np.add(X, Y, where=I)
np.add(X, Y, dtype="float32")
np.add(I, I, dtype=float)
np.add(I, 1, dtype="int8")
np.add(X, 1, dtype=int)
np.add(X, 1, dtype=int, casting="unsafe")
np.add(I, 2.5, casting="no")
np.add(F, X, casting="safe")
np.add(F, F, signature="dd->d")
np.add(I, I, signature=(None, None, numpy.float64))
np.sqrt(I, dtype="float32")
np.multiply(2, 3)
np.multiply(True, False)
np.add(X)
np.add()
np.add(X, Y, foo=1)
np.exp(-0.05)
np.exp([1, 2])
np.divmod(X, 2)
np.divmod(X, 2, out=(X, Y)); X, Y
np.modf(X, out=(X, Y)); X, Y
np.modf(X, out=(None, Y)); Y
np.frexp(P)[1]
np.ldexp(X, I)
np.ldexp(X, 2)
np.ldexp(F, [1, 2, 3, 4, 5, 6])
np.ldexp(X, 2.5)
np.isnat(M)
np.isnat(X)
np.isnat(M[1:] - M[:-1])
np.lcm([6, 4], [4, 10])
np.gcd(X, 2)
np.float_power(I, 2)
np.float_power(I, -1)
np.power(I, -1)
np.power(I, 2)
np.power(2.0, I)
np.heaviside(X, 0.5)
np.arccosh(P + 1)
np.acosh(P + 1)
np.arccosh(I)
np.positive(B)
np.negative(B)
np.subtract(B, B)
np.add(B, B)
np.multiply(H, H)
np.sin(H)
np.add(H, X)
np.add(H, 1)
np.sqrt(B)
np.absolute(M[1:] - M[:-1])
np.maximum(M, M[0])
np.add(M, numpy.timedelta64(1, "D"))
np.subtract(M, M[::-1])
np.add(M, M)
np.less(M, M[0])
np.floor_divide(M - M[0], numpy.timedelta64(2, "D"))
np.add.nin, np.add.nout, np.add.nargs, np.add.identity
np.modf.nin, np.modf.nout
np.multiply.identity, np.maximum.identity
np.add.ntypes > 10
np.add.__name__
np.add.reduce(X, out=V[:6])
np.add.reduce(X, axis=1, out=np.zeros(4))
np.add.reduce(X, initial=5)
np.add.reduce(X, where=B)
np.add.reduce(X, 1, None, None, True)
np.add.reduce(5)
np.add.reduce([])
np.multiply.reduce(X, where=B, initial=2)
np.maximum.reduce(X, where=B)
np.maximum.reduce(X, where=B, initial=-1)
np.minimum.reduce(X, initial=-1)
np.fmax.reduce(N, axis=1)
np.fmin.reduce(N, axis=None)
np.logical_xor.reduce(B)
np.logical_xor.reduce(B, axis=1, where=B)
np.bitwise_or.reduce(U, axis=1)
np.bitwise_and.reduce(U, where=B)
np.subtract.reduce(X, initial=10)
np.subtract.reduce(E)
np.power.reduce([2, 3, 2])
np.divide.reduce(V)
np.sin.reduce(X)
np.modf.reduce(X)
np.hypot.reduce(X, axis=1)
np.logaddexp.reduce(X, axis=None)
np.add.accumulate(X, 1)
np.add.accumulate(X, dtype="float32")
np.add.accumulate(5)
np.subtract.accumulate(V)
np.minimum.accumulate(V, out=W); W
np.add.reduceat(V, [0, 5, 11])
np.add.reduceat(V, [])
np.add.reduceat(V, [0, 12])
np.add.reduceat(V, [0.5])
np.add.reduceat(X, [0, 1], axis=0)
np.add.reduceat(X, [0, 3, 5], 1, out=np.zeros((4, 3)))
np.multiply.outer(I, V)
np.multiply.outer(2, 3)
np.add.outer(V, V, out=np.zeros((12, 12)))
np.less.outer(V, W)
np.add.at(V, [0, 0, 1], 1); V
np.negative.at(V, [0, 1]); V
np.add.at(V, [0], 1, 2)
np.add.at(V, [0])
np.multiply.at(I, ([0, 0], [1, 1]), 3); I
np.real(C)
np.real(X)
np.real(2.5)
np.imag(C)
np.imag([1, 2])
np.real(C).base is C
np.where(X > 0)
np.where(X > 0, X, 0)
np.where(B, X, I)
np.where(B, 1, 0)
np.where(B, [1, 2, 3, 4, 5, 6], X)
np.where(B, X)
np.where([True, False], [1, 2], [3, 4])
np.where(X > 0, U, 300)
np.round(X)
np.round(X, 2)
np.round(X, decimals=1)
np.round(I, -1)
np.round(I)
np.round(X, 1, X); X
np.round(X, out=Y); Y
np.round(C, 1)
np.round(2.567, 2)
np.round(B)
np.round(H, 1)
np.around(X, 2)
np.around([1.5, 2.5])
X.round(1)
X.round(decimals=2)
X.round(1, out=Y); Y
np.fix(X)
np.fix([2.7, -2.7])
np.fix(I)
np.fix(X, out=Y); Y
np.clip(X, -0.5, 0.5)
np.clip(X, None, 0.5)
np.clip(X, -0.5, None)
np.clip(X, a_min=-0.5, a_max=0.5)
np.clip(X, min=-0.5)
np.clip(X, max=0.5)
np.clip(X, min=0, max=1)
np.clip(X, 0)
np.clip(X, 0, 1, min=0)
np.clip(X)
np.clip(X, None, None)
np.clip(I, 0.5, 2.5)
np.clip(U, -1, 300)
np.clip(U, 10, 20)
np.clip(U, 10, 300.5)
np.clip(X, Y, Y + 1)
np.clip(X, 0, 1, out=X); X
np.clip(I, 0, 3, out=X); X
np.clip(X, 0, 3, out=I)
np.clip(X, 0, 1, where=B, out=Y); Y
np.clip(I, 0, 3, dtype=float)
np.clip([1, 2, 3], 2, None)
np.clip(N, 0, 1)
X.clip(0, 1)
X.clip(min=0)
X.clip(max=0.5)
X.clip(0, 1, X); X
np.isclose(X, X + 1e-9)
np.isclose(X, Y, rtol=1)
np.isclose(X, Y, 0, 1)
np.isclose(N, N)
np.isclose(N, N, equal_nan=True)
np.isclose(N, N, 1e-5, 1e-8, True)
np.isclose([1e10, 1e-7], [1.00001e10, 1e-8])
np.isclose(I, I + 0.1, atol=0.2)
np.isclose(X, Y, atol=abs(Y))
np.isclose(C, C)
np.allclose(X, X + 1e-12)
np.allclose(X, Y)
np.allclose(N, N, equal_nan=True)
np.allclose(X, V)
np.allclose([1, 2], [1, 2.0000001], rtol=1e-3, atol=0)
np.array_equal(X, X)
np.array_equal(X, Y)
np.array_equal(X, V)
np.array_equal(N, N)
np.array_equal(N, N, equal_nan=True)
np.array_equal([1, 2], [1, 2])
np.array_equal(I, I.astype(float))
np.array_equal(M, M, equal_nan=True)
np.array_equal(U, U, equal_nan=True)
np.array_equiv(X, X)
np.array_equiv([1, 2], [[1, 2], [1, 2]])
np.array_equiv(X, V)
np.array_equiv(X, 1)
np.nan_to_num(N)
np.nan_to_num(N, nan=5)
np.nan_to_num([numpy.inf, -numpy.inf, numpy.nan], posinf=1, neginf=-1)
np.nan_to_num(N, True, 3.0)
np.nan_to_num(N, copy=False); N
np.nan_to_num(I)
np.nan_to_num(F / 0, nan=0, posinf=9)
np.nan_to_num(C / 0)
np.nan_to_num(numpy.nan)
np.sinc(X)
np.sinc(I)
np.sinc(0)
np.sinc(H)
np.i0(X)
np.i0(I)
np.i0(F)
np.i0(C)
np.angle(C)
np.angle(C, deg=True)
np.angle(X)
np.angle(I, True)
np.angle([1j, -1])
np.angle(F)
np.isreal(C)
np.isreal(X)
np.isreal([1, 1j])
np.iscomplex(C)
np.iscomplex(X)
np.iscomplex(3)
np.isrealobj(X)
np.isrealobj(C)
np.isrealobj([1j])
np.iscomplexobj(C)
np.iscomplexobj(F)
np.iscomplexobj(1j)
np.isposinf(1 / E)
np.isposinf([numpy.inf, -numpy.inf, 1])
np.isposinf(C)
np.isposinf(I)
np.isposinf([numpy.inf], out=np.zeros(1, dtype=bool))
np.isneginf([numpy.inf, -numpy.inf, 1])
np.isneginf(X, out=B); B
np.isneginf(C)
np.real_if_close(C)
np.real_if_close(C * 0 + 1)
np.real_if_close(X + 1e-20j)
np.real_if_close(X + 1e-5j, tol=1e12)
np.real_if_close(X + 1e-5j, tol=1e-3)
np.real_if_close(X)
np.real_if_close([1, 2])
np.select([X > 1, X > 0], [X, X * 2])
np.select([X > 1, X > 0], [X, X * 2], default=9)
np.select([X > 1, I > 0], [I, F], Y)
np.select([B], [1])
np.select([B], [1.5], 2)
np.select([B, B], [1])
np.select([], [])
np.select([I], [1])
np.select([[True, False]], [[1, 2]], 7)
np.select([X > 0], [U], 300)
np.choose(J, [V, W, V * 2, W * 2])
np.choose(J, [10, 20, 30, 40])
np.choose([0, 1, 0], [[1, 2, 3], [4, 5, 6]])
np.choose([0, 5], [[1, 2], [3, 4]])
np.choose([0, 5], [[1, 2], [3, 4]], mode="wrap")
np.choose([0, 5], [[1, 2], [3, 4]], None, "clip")
np.choose([0, -1], [[1, 2], [3, 4]], mode="wrap")
np.choose([0, 1], [[1, 2], [3, 4]], mode="nope")
np.choose(J, T[0, :, 0])
np.choose(B, [X, Y])
np.choose(X, [X, Y])
np.choose([0, 1], [[1, 2], [3, 4]], out=np.zeros(2, dtype=int))
J.choose([V, W, V, W])
J.choose([V, W], mode="clip")
"""
)

_CLIP = "the standard lets either bound be missing, so min and max are positional"
DIFFERENT = {
    "np.clip(X, 0)": _CLIP,
    "ours: np.clip(X, 0, 1, min=0)": _CLIP,
    "chunked: np.clip(X, 0, 1, min=0)": _CLIP,
}
