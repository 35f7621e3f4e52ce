"""Names of dtypes, promotion, and what an object is as an array."""

_TYPES = str.split(
    """
    bool_ byte cdouble complex64 complex128 complexfloating csingle datetime64 double
    flexible float16 float32 float64 floating generic half inexact int8 int16 int32 int64
    int_ intc integer intp long longlong number short signedinteger single timedelta64 ubyte
    uint uint8 uint16 uint32 uint64 uintc uintp ulong ulonglong unsignedinteger ushort void
    bool
    """
)

FORMS = (
    "\n".join(f"np.{name}" for name in _TYPES)
    + """
np.dtype("f4")
np.dtype([("a", int), ("b", float)])
np.float16(2.5)
np.int8(3) + 1
np.datetime64("2020-01-01")
np.timedelta64(3, "D")
np.e, np.pi, np.inf, np.euler_gamma, np.newaxis
np.nan
np.can_cast("int32", "int64")
np.can_cast(float, int)
np.can_cast(float, int, "unsafe")
np.can_cast(float, "f4", casting="same_kind")
np.can_cast(X, "f4")
np.can_cast(X, complex)
np.can_cast(5, "int8")
np.result_type(X, F)
np.result_type(F, 2.0)
np.result_type(U, 1)
np.result_type("i4", "f4")
np.result_type(I, 2.5)
np.result_type()
np.result_type(M, M - M)
np.promote_types("i4", "f4")
np.promote_types(int, "U3")
np.issubdtype(X.dtype, np.floating)
np.issubdtype(I.dtype, np.integer)
np.issubdtype(U.dtype, np.signedinteger)
np.min_scalar_type(10)
np.min_scalar_type(-260)
np.min_scalar_type(3.1)
np.min_scalar_type(X)
np.min_scalar_type(Z)
np.mintypecode(["d", "f", "S"])
np.mintypecode("fF")
np.common_type(X, F)
np.common_type(I)
np.common_type(C, F)
np.common_type(B)
np.typename("d")
np.isscalar(3)
np.isscalar(X)
np.isscalar(X.sum())
np.isscalar(X[0, 0])
np.isscalar(Z)
np.isscalar("a")
np.iterable(X)
np.iterable(3)
np.iterable([1])
np.ndim(X), np.ndim([1, 2]), np.ndim(5), np.ndim(Z)
np.shape(X), np.shape([[1, 2]]), np.shape(5)
np.size(X), np.size(X, 0), np.size([1, 2]), np.size(5)
np.size(X, axis=1)
np.size(X, 5)
np.size(T, (0, 1))
np.copy(X)
np.copy([1, 2])
np.copy(X, order="F")
np.copy(X, "C", False)
A = np.copy(X); A[0] = 1; X
np.copy(Z)
np.isdtype(X.dtype, "real floating")
np.isdtype(np.dtype("i4"), ("integral", "bool"))
np.isdtype(np.int8, kind="signed integer")
np.isdtype("i4", "nope")
np.iinfo("int8").max, np.iinfo(np.int64).min, np.iinfo("u2").bits
np.iinfo(I[0, 0].dtype).kind
np.iinfo(float)
np.finfo(float).eps, np.finfo("f8").max, np.finfo("f4").bits
np.finfo(X.dtype).tiny
np.finfo(np.float32).precision
np.finfo(np.float32).dtype
np.finfo(complex).dtype
np.finfo(int)
np.astype(X, "f4")
np.astype(X, np.int64)
np.astype(X, float, copy=False)
np.astype(I, dtype=float)
np.astype([1, 2], float)
np.astype(C, float)
X.astype("f4")
X.astype(int)
X.astype(int, casting="safe")
X.astype("f4", "C", "same_kind", True, False)
X.astype("f4", order="F")
X.astype("f4", order="X")
X.astype(np.complex64)
C.astype(float)
C.astype(int)
B.astype(int)
N.astype(bool)
M.astype("datetime64[s]")
M.astype(int)
I.astype("timedelta64[D]")
X.astype("nope")
U.astype("int8")
H.astype("f8")
H + H
H.sum(), H.mean(), H.max()
H * 2.5
H @ H.T
M - M[0]
(M - M[0]).sum()
(M - M[0]).mean()
M.min(), M.max()
M.argmax()
np.sort(M)
M == M[0]
M > np.datetime64("2020-01-02")
(M - M[0]) / np.timedelta64(1, "D")
(M[1:] - M[:-1]) * 2
np.abs(M[0] - M)
np.where(M > M[0], M, M[0])
np.cumsum(M - M[0])
with_seconds = M + np.timedelta64(5, "s"); with_seconds
np.geterr()["divide"]
np.seterr(divide="ignore")["over"], np.seterr(divide="warn")["divide"]
np.geterrcall()
np.seterrcall(None)
np.errstate(divide="ignore").__class__.__name__
np.get_printoptions()["precision"]
np.set_printoptions(precision=8)
np.printoptions(precision=2).__enter__()["precision"], np.set_printoptions(precision=8)
"""
)

_TEXT = "arrays hold numbers, dates and records of them: never objects or texts"
LEFT_OUT = {
    "bytes_": _TEXT,
    "character": _TEXT,
    "object_": _TEXT,
    "str_": _TEXT,
    "clongdouble": "depends on the machine: use complex128",
    "complex256": "depends on the machine: use complex128",
    "float128": "depends on the machine: use float64",
    "longdouble": "depends on the machine: use float64",
    "getbufsize": "chunks are cut by xp.config",
    "setbufsize": "chunks are cut by xp.config",
}
_SCALAR = "NumPy's own isscalar asks for no protocol: it knows its own types only"
DIFFERENT = {
    "protocol: np.isscalar(X.sum())": _SCALAR,
    "protocol: np.isscalar(X[0, 0])": _SCALAR,
}
