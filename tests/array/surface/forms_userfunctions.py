"""Functions of the user's, along axes, over axes, piece by piece, element by element."""

FORMS = """
np.apply_along_axis(lambda r: r.max() - r.min(), 1, X)
np.apply_along_axis(func1d=numpy.sort, axis=0, arr=X)
np.apply_along_axis(lambda r, k: r[:k], 1, X, 2)
np.apply_along_axis(lambda r: 1, 5, X)
np.apply_over_axes(numpy.sum, T, [0, 2])
np.apply_over_axes(func=numpy.max, a=T, axes=1)
np.piecewise(V, [V < 0, V >= 0], [-1, 1])
np.piecewise(x=V, condlist=[V < -1], funclist=[-1, 7])
np.piecewise(V, [V < -1, V < 0], [lambda v: -v, lambda v: v * 2])
np.piecewise(J, [J < 2], [0.7, 1.9])
np.piecewise(J, [J < 2], [numpy.nan])
np.piecewise(V, [V < 0], [1, 2, 3])
np.vectorize(lambda a, b: a if a > b else b)(V, W)
np.vectorize(pyfunc=lambda a: a * 2, otypes=["f4"])(V)
np.vectorize(lambda a: a.sum(), signature="(n)->()")(X)
np.frompyfunc(lambda a, b: a + b, 2, 1)(V, W).astype(float)
"""
