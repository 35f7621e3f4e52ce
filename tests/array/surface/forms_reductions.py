"""Reductions and scans: functions, methods, and those that pass over NaN."""

_ALL = str.split(
    """
    sum prod mean std var max min amax amin ptp all any argmax argmin cumsum cumprod
    """
)
_NAN = str.split(
    """
    nansum nanprod nanmean nanstd nanvar nanmax nanmin nanargmax nanargmin nancumsum
    nancumprod
    """
)
_METHODS = str.split(
    """
    sum prod mean std var max min all any argmax argmin cumsum cumprod
    """
)
_WHERE = str.split(
    """
    sum prod mean std var max min all any nansum nanprod nanmean nanstd nanvar nanmax
    """
)

_LINES: list[str] = []
for _name in (*_ALL, *_NAN):
    _LINES += [
        f"np.{_name}({x})"
        for x in ("X", "I", "U", "B", "F", "N", "E", "[1, 2, 3]", "5", "Z", "[]", "C", "H", "T")
    ]
    _LINES += [
        f"np.{_name}(X, 0)",
        f"np.{_name}(X, axis=1)",
        f"np.{_name}(T, -1)",
        f"np.{_name}(X, 2)",
        f"np.{_name}(E, 0)",
        f"np.{_name}(E, 1)",
        f"np.{_name}(N, 1)",
        f"np.{_name}(a=X, axis=0)",
        f"np.{_name}(X, 1.5)",
        f"np.{_name}(M[1:] - M[:-1])",
        f"np.{_name}(M)",
    ]
for _name in (*(_ALL[:-2]), *(_NAN[:-2])):
    _LINES += [f"np.{_name}(X, axis=0, keepdims=True)", f"np.{_name}(X, keepdims=True)"]
    if "arg" not in _name:
        _LINES += [
            f"np.{_name}(T, (0, 2))",
            f"np.{_name}(T, axis=(0, 2), keepdims=True)",
            f"np.{_name}(T, ())",
            f"np.{_name}(T, (0, 0))",
        ]
for _name in _METHODS:
    _LINES += [f"X.{_name}()", f"X.{_name}(0)", f"X.{_name}(axis=1)", f"I.{_name}(-1)"]
    if not _name.startswith("cum"):
        _LINES.append(f"X.{_name}(axis=0, keepdims=True)")
for _name in (
    "sum",
    "prod",
    "mean",
    "std",
    "var",
    "cumsum",
    "cumprod",
    "nansum",
    "nanprod",
    "nanmean",
    "nanstd",
    "nanvar",
    "nancumsum",
    "nancumprod",
):
    _LINES += [
        f"np.{_name}(X, 0, 'float32')",
        f"np.{_name}(I, dtype=float)",
        f"np.{_name}(I, 1, 'f4')",
        f"np.{_name}(I, 1, int)",
        f"np.{_name}(X, 0, None, V[:6])",
        f"np.{_name}(N, 1, dtype='f4')",
        f"np.{_name}(U, dtype='uint8')",
    ]
for _name in _WHERE:
    _LINES += [
        f"np.{_name}(X, where=B, axis=1)"
        if "ma" not in _name and "mi" not in _name
        else f"np.{_name}(X, where=B, axis=1, initial=-9)",
        f"np.{_name}(I, where=I > 0)",
        f"np.{_name}(X, where=[True, False, True, True, False, True], axis=0)",
        f"np.{_name}(X, where=I)",
        f"np.{_name}(X, where=np.asarray([True, False]))",
    ]
for _name in ("sum", "prod", "max", "min", "nansum", "nanprod", "nanmax", "nanmin"):
    _LINES += [
        f"np.{_name}(X, initial=3)",
        f"np.{_name}(I, 0, initial=2)",
        f"np.{_name}(E, initial=1)",
        f"np.{_name}(I, initial=1.5)",
        f"np.{_name}(N, axis=0, initial=0.5, where=B)",
        f"np.{_name}(E, axis=0, initial=1)",
    ]
for _name in ("std", "var", "nanstd", "nanvar"):
    _LINES += [
        f"np.{_name}(X, 0, ddof=1)",
        f"np.{_name}(X, ddof=1.5)",
        f"np.{_name}(X, correction=1)",
        f"np.{_name}(X, ddof=1, correction=1)",
        f"np.{_name}(X, 1, None, None, 1, True)",
        f"np.{_name}(X, axis=0, mean=np.mean(X, axis=0, keepdims=True))",
        f"np.{_name}(N, axis=1, ddof=1)",
        f"np.{_name}([1.0], ddof=1)",
        f"np.{_name}(X, axis=1, ddof=1, where=B)",
        f"np.{_name}(C, axis=0)",
        f"np.{_name}(H, axis=1)",
        f"np.{_name}([[1.0, numpy.nan], [numpy.nan] * 2], 1)",
        f"np.{_name}(X, axis=0, ddof=9)",
    ]

FORMS = (
    "\n".join(dict.fromkeys(_LINES))
    + """
np.sum(X, axis=0, out=V[:6]); V
np.sum(X, axis=0, out=V)
np.sum(X, out=Z); Z
np.sum(X, 0, None, V[:6], False, 1.0); V
np.sum(X, axis=0, out=I[0])
np.sum(I, axis=0, out=X[0]); X
np.sum(X, axis=0, out=V[:6]) is V
np.mean(X, axis=1, out=V[:4]); V
np.mean(X, axis=1, out=I[:, 0])
np.max(X, axis=0, out=X[0]); X
np.max(X, out=I)
np.all(X, axis=0, out=X[0]); X
np.any(B, axis=0, out=B[0]); B
np.argmax(X, axis=0, out=I[0]); I
np.argmin(X, 0, I[0]); I
np.cumsum(X, axis=0, out=Y); Y
np.cumsum(X, out=V)
np.cumprod(I, 1, None, I); I
np.ptp(X, 0, V[:6]); V
np.ptp(U)
np.ptp(M)
np.sum(X, dtype="U3")
np.sum(X, dtype=object)
np.sum(X, axis="a")
np.sum(X, axis=None)
np.sum(X, axis=-3)
np.sum(np.asarray([True, True]))
np.sum(U.astype("int8"))
np.sum(U[0] > 3, dtype="int8")
np.sum([[1, 2], [3]])
np.sum(M)
np.sum(F, dtype="float64")
np.sum(H)
np.sum(C, dtype=float)
np.mean(H, dtype="float64")
np.mean(H, axis=0)
np.mean(I, dtype=int)
np.mean(U)
np.mean(E, axis=1)
np.mean(E, axis=0)
np.mean(M[1:] - M[:-1])
np.mean(X, where=(X > 99))
np.min(M), np.max(M)
np.prod([], dtype=int)
np.var([])
np.std(5)
np.count_nonzero(X)
np.count_nonzero(I, axis=0)
np.count_nonzero(I, 1, keepdims=True)
np.count_nonzero(B, axis=(0, 1))
np.count_nonzero([0, 1, 2])
np.count_nonzero(E)
np.count_nonzero(True)
np.cumulative_sum(V)
np.cumulative_sum(X, axis=0)
np.cumulative_sum(X, axis=1, include_initial=True)
np.cumulative_sum(X)
np.cumulative_sum(I, axis=1, dtype=float)
np.cumulative_sum(V, out=W); W
np.cumulative_sum(5)
np.cumulative_prod(V)
np.cumulative_prod(X, axis=0, include_initial=True)
np.cumulative_prod(I, axis=-1, dtype="f4")
np.cumsum(X, axis=5)
np.cumsum(B)
np.cumsum(U)
np.cumsum(U, dtype="u1")
np.nanargmax([[numpy.nan, numpy.nan], [1, 2]], axis=1)
np.nanargmax([[numpy.nan, numpy.nan], [1, 2]], axis=0)
np.nanargmax([numpy.nan])
np.nanargmin([[numpy.nan, 3], [1, 2]], 1)
np.nanargmin([numpy.nan, numpy.nan])
np.nanargmax([numpy.nan, -numpy.inf])
np.nanmax([numpy.nan, numpy.nan])
np.nanmin([[numpy.nan, numpy.nan], [1, 2]], axis=1)
np.nanmean([[numpy.nan, numpy.nan], [1, 2]], axis=1)
np.nanvar([[numpy.nan, numpy.nan], [1, 2]], axis=1)
np.nanstd([numpy.nan, 2.0], ddof=1)
np.nansum([numpy.nan, numpy.nan])
np.nanmean(N, dtype=int)
np.nanmean(N, 0, None, V[:6]); V
np.nanmax(N, 0, V[:6]); V
np.nansum(N, axis=0, out=V[:6]); V
np.nanargmax(N, 0, I[0]); I
np.nancumsum(N, axis=1, out=X); X
np.average(X)
np.average(X, 0)
np.average(X, axis=1, weights=[1, 2, 3, 4, 5, 6])
np.average(X, weights=P)
np.average(X, 0, P)
np.average(X, axis=0, weights=[1, 2, 3, 4], returned=True)
np.average(X, returned=True)
np.average(X, 0, None, True)
np.average(I, axis=1, returned=True)
np.average(X, weights=[1, 2])
np.average(X, axis=0, weights=[1, 2])
np.average(X, axis=0, weights=[0, 0, 0, 0])
np.average([1.0, 2.0], weights=[1, -1])
np.average(X, weights=P, keepdims=True)
np.average(T, axis=(0, 1), weights=np.ones((2, 3)))
np.average(T, axis=(1, 0), weights=[[1, 2], [3, 4], [5, 6]])
np.average(F, weights=F)
np.average(I, weights=U)
np.average([1, 2, 3])
np.average(C, axis=0)
np.median(X)
np.median(X, 0)
np.median(X, axis=1, keepdims=True)
np.median(I)
np.median(N)
np.median(N, axis=0)
np.median(T, axis=(0, 2))
np.median(X, axis=0, out=V[:6]); V
np.median(X, 0, None, True)
np.median(X, overwrite_input=True)
np.median([1, 2, 3, 4])
np.median([])
np.median(E, axis=1)
np.median(F)
np.median(H)
np.median(U, axis=1)
np.median(B)
np.median(C)
np.median(5)
np.median(M[1:] - M[:-1])
np.nanmedian(N)
np.nanmedian(N, axis=1)
np.nanmedian(N, 0, keepdims=True)
np.nanmedian([numpy.nan])
np.nanmedian(N, axis=0, out=V[:6]); V
np.nanmedian(I, axis=0)
np.quantile(X, 0.3)
np.quantile(X, [0.1, 0.9], axis=0)
np.quantile(X, 0.5, 1, keepdims=True)
np.quantile(X, [[0.1, 0.2], [0.3, 0.4]], axis=1)
np.quantile(X, [[0.1, 0.2], [0.3, 0.4]])
np.quantile(X, 0.3, axis=0, out=V[:6]); V
np.quantile(X, 0.3, None, None, False, "lower")
np.quantile(X, 0.3, method="nearest")
np.quantile(I, 0.5)
np.quantile(F, 0.5, axis=1)
np.quantile(F, [0.5])
np.quantile(X, 1.5)
np.quantile(X, 0.3, method="nope")
np.quantile(C, 0.3)
np.quantile(B, 0.3)
np.quantile(N, 0.3)
np.quantile([1, 2, 3], 0.25)
np.quantile(X, 0)
np.quantile(X, 1)
np.quantile(X, 0.4, weights=P, method="inverted_cdf")
np.quantile(X, 0.4, axis=1, weights=[1, 2, 3, 4, 5, 6], method="inverted_cdf")
np.quantile(X, [0.4, 0.6], axis=0, weights=P, method="inverted_cdf")
np.quantile(X, 0.4, weights=P)
np.quantile(X, 0.4, weights=-P, method="inverted_cdf")
np.quantile(X, 0.4, weights=[1, 2], method="inverted_cdf")
np.quantile(X, 0.4, axis=0, weights=[1, 2], method="inverted_cdf")
np.percentile(X, 30)
np.percentile(X, [25, 50, 75])
np.percentile(X, [25, 50], axis=1)
np.percentile(X, 30, 0, keepdims=True)
np.percentile(F, 30)
np.percentile(F, [30])
np.percentile(I, 50, method="higher")
np.percentile(X, 130)
np.percentile(X, 40, weights=P, method="inverted_cdf")
np.percentile(X, 30, axis=0, out=V[:6]); V
np.percentile(X, q=50)
np.percentile(X, np.asarray([5, 95]))
np.nanquantile(N, 0.4)
np.nanquantile(N, [0.4, 0.5], axis=1)
np.nanquantile(N, 0.4, axis=0, method="lower", keepdims=True)
np.nanquantile(N, 0.4, weights=P, method="inverted_cdf")
np.nanquantile(N, 0.4, axis=0, weights=P, method="inverted_cdf")
np.nanpercentile(N, 40)
np.nanpercentile(N, [40, 60], 0)
np.nanpercentile(N, 40, axis=1, out=V[:4]); V
np.cov(X)
np.cov(X.T)
np.cov(X, rowvar=False)
np.cov(X, Y)
np.cov(V, W)
np.cov(X, Y, False)
np.cov(X, bias=True)
np.cov(X, ddof=0)
np.cov(X, ddof=2)
np.cov(X, ddof=1.5)
np.cov(X, fweights=[1, 2, 3, 1, 2, 3])
np.cov(X, aweights=[1, 2, 3, 1, 2, 3])
np.cov(X, fweights=[1, 2, 3, 1, 2, 3], aweights=P[0])
np.cov(X, fweights=[1.5] * 6)
np.cov(X, fweights=[1, 2])
np.cov(X, aweights=[-1] * 6)
np.cov(X, dtype="float32")
np.cov(V)
np.cov(V, rowvar=False)
np.cov(I)
np.cov(C)
np.cov(F)
np.cov(T)
np.cov([1, 2, 3])
np.cov(5)
np.cov(E)
np.cov(m=X, y=Y)
np.corrcoef(X)
np.corrcoef(X, Y)
np.corrcoef(V, W)
np.corrcoef(X, rowvar=False)
np.corrcoef(V)
np.corrcoef(C)
np.corrcoef(X, dtype="float32")
np.histogram(X)
np.histogram(X, 5)
np.histogram(X, bins=5, range=(-1, 1))
np.histogram(X, bins="auto")
np.histogram(X, bins="fd")
np.histogram(X, bins="doane")
np.histogram(X, bins="scott")
np.histogram(X, bins="stone")
np.histogram(X, bins="rice")
np.histogram(X, bins="sturges")
np.histogram(X, bins="sqrt")
np.histogram(X, bins="auto", range=(-1, 1))
np.histogram(X, bins="nope")
np.histogram(X, bins="auto", weights=P)
np.histogram(I, bins="auto")
np.histogram(F, bins="fd")
np.histogram(X * 0, bins="auto")
np.histogram(E, bins="auto")
np.histogram(E)
np.histogram(X, [-1, 0, 1])
np.histogram(X, [1, 0])
np.histogram(X, bins=[[1, 2]])
np.histogram(X, bins=0)
np.histogram(X, bins=1.5)
np.histogram(X, density=True)
np.histogram(X, bins=[-1, 0, 3], density=True, weights=P)
np.histogram(X, weights=P)
np.histogram(X, weights=I)
np.histogram(X, weights=V)
np.histogram(I, 3)
np.histogram(U, 4)
np.histogram(B)
np.histogram(N)
np.histogram(N, range=(-1, 1))
np.histogram([1, 2, 1], bins=[0, 1, 2, 3])
np.histogram(X, range=(1, 0))
np.histogram(X, bins=S)
np.histogram_bin_edges(X)
np.histogram_bin_edges(X, "auto")
np.histogram_bin_edges(I, bins=3, range=(0, 5))
np.histogram_bin_edges(X, [0, 1])
np.histogram_bin_edges(X, "fd", weights=None)
np.histogram_bin_edges(U, "auto")
np.histogram2d(V, W)
np.histogram2d(V, W, bins=3)
np.histogram2d(V, W, bins=[3, 4])
np.histogram2d(V, W, bins=[[-1, 0, 1], [-2, 0, 2]])
np.histogram2d(V, W, bins=[-1, 0, 1, 2])
np.histogram2d(V, W, bins=3, range=[[-1, 1], [-2, 2]])
np.histogram2d(V, W, density=True)
np.histogram2d(V, W, bins=3, weights=S)
np.histogram2d(V, W[:3])
np.histogramdd(X, bins=2)
np.histogramdd(X[:, :2], bins=(2, 3))
np.histogramdd([V, W], bins=2)
np.histogramdd((V, W, S), bins=[2, 2, [-1, 0, 1]])
np.histogramdd(X[:, :2], bins=2, density=True, weights=[1, 2, 3, 4])
np.histogramdd(X[:, :2], bins=(2, 3, 4))
np.histogramdd(V, bins=3)
np.histogramdd(X[:, :2], bins=2, range=[(-1, 1), None])
np.histogramdd(X[:, :2], bins=[[1, 0], 2])
np.histogramdd(X[:, :2], bins=0)
np.bincount(J)
np.bincount(J, W)
np.bincount(J, weights=I[0])
np.bincount(J, minlength=9)
np.bincount(J, None, 6)
np.bincount([0, 1, 1, 3])
np.bincount(I)
np.bincount([-1])
np.bincount([1.5])
np.bincount([1j])
np.bincount(V)
np.bincount([])
np.bincount(J, W[:3])
np.bincount(J, minlength=-1)
np.bincount(U[0])
np.diff(V)
np.diff(X)
np.diff(X, 2)
np.diff(X, axis=0)
np.diff(X, 1, 0)
np.diff(X, n=0)
np.diff(X, n=-1)
np.diff(X, 1, -1, 0)
np.diff(X, prepend=0)
np.diff(X, append=[[1], [2], [3], [4]])
np.diff(X, prepend=X[:, :2], append=5, axis=1)
np.diff(X, prepend=[1, 2])
np.diff(I, prepend=0.5)
np.diff(B)
np.diff(U)
np.diff(M)
np.diff(5)
np.diff([1, 2, 4])
np.diff(E, axis=0)
np.diff(X, 9)
np.ediff1d(V)
np.ediff1d(X)
np.ediff1d(V, to_end=[1, 2])
np.ediff1d(V, 9, 8)
np.ediff1d(I, to_begin=-99)
np.ediff1d(I, to_begin=0.5)
np.ediff1d([1, 2, 4])
np.ediff1d(E)
np.gradient(V)
np.gradient(X)
np.gradient(X, 2)
np.gradient(X, axis=0)
np.gradient(X, 2.0, axis=1)
np.gradient(X, 2, 3)
np.gradient(X, [1, 2, 4, 7], 1)
np.gradient(V, S)
np.gradient(V, 2, edge_order=2)
np.gradient(V, S, edge_order=2)
np.gradient(X, edge_order=2, axis=(0, 1))
np.gradient(X, edge_order=3)
np.gradient(X, 1, 2, 3)
np.gradient(I)
np.gradient(F)
np.gradient([1, 2, 4])
np.gradient([1.0])
np.gradient(V, V[:3])
np.gradient(M)
np.gradient(U.astype("int64"), axis=0)
np.trapezoid(V)
np.trapezoid(X)
np.trapezoid(X, axis=0)
np.trapezoid(X, dx=2)
np.trapezoid(V, S)
np.trapezoid(X, x=[1, 2, 4, 7], axis=0)
np.trapezoid(X, Y)
np.trapezoid(I, None, 0.5, 1)
np.trapezoid([1, 2, 3])
np.trapezoid(F)
np.unwrap(V * 5)
np.unwrap(X * 9)
np.unwrap(X * 9, axis=0)
np.unwrap(V * 9, 4)
np.unwrap(V * 9, discont=1.0, axis=-1)
np.unwrap([0, 1, 2, -1, 0], period=4)
np.unwrap([0, 1, 5, 6], period=5)
np.unwrap(F * 9)
np.unwrap(I, period=3)
np.convolve(V, W)
np.convolve(V, [1, 2, 3])
np.convolve(V, [1, 2, 3], "same")
np.convolve(V, [1, 2, 3], mode="valid")
np.convolve(V, [1, 2, 3, 4], "same")
np.convolve([1, 2], V, "same")
np.convolve([1, 2, 3], V, "valid")
np.convolve(V, 2)
np.convolve(J, [1, 2])
np.convolve(V, [1j, 2])
np.convolve(V, [])
np.convolve(X, V)
np.convolve(V, W, "nope")
np.convolve(V, [1], "same")
np.correlate(V, W)
np.correlate(V, [1, 2, 3])
np.correlate(V, [1, 2, 3], "same")
np.correlate(V, [1, 2, 3, 4], "same")
np.correlate(V, [1, 2, 3], mode="full")
np.correlate([1, 2, 3], V, "full")
np.correlate([1, 2], V, "same")
np.correlate([1, 2, 3], V)
np.correlate(V, [1j, 2], "full")
np.correlate(C[0], C[1][:3], "full")
np.correlate([], [1])
np.interp(X, S, W)
np.interp(0.5, [0, 1], [1, 3])
np.interp([0.5, 9], [0, 1], [1, 3], left=-1, right=9)
np.interp(X, S, W, -5, 5)
np.interp(V, [0, 1, 2], [3, 4, 5], period=3)
np.interp(V, [2, 0.5, 1], [3, 4, 5], period=-3)
np.interp(V, [0, 1, 2], [3, 4, 5], period=0)
np.interp(V, [0, 1], [1j, 2])
np.interp(V, [0, 1], [1, 2, 3])
np.interp(V, [], [])
np.interp(I, [0, 1], [0, 10])
np.interp(C, [0, 1], [0, 10])
np.interp(N, S, W)
np.cross([1, 2, 3], [4, 5, 6])
np.cross(X[:, :3], Y[:, :3])
np.cross(X[:3], Y[:3], axis=0)
np.cross(X[:3], Y[:3], 0, 0, 0)
np.cross(X[:3], Y[:3], axisa=0, axisb=0, axisc=-1)
np.cross(X[:, :3], [1, 2, 3])
np.cross([1, 2], [3, 4])
np.cross([1, 2, 3], [3, 4])
np.cross(X, Y)
np.cross(I[:, :3], X[:, 3:])
np.cross(5, [1, 2, 3])
"""
)

_OBJECTS = "arrays hold numbers, dates and records of them: never objects or texts"
DIFFERENT = {
    "ours: np.sum(X, dtype=object)": _OBJECTS,
    "chunked: np.sum(X, dtype=object)": _OBJECTS,
}
