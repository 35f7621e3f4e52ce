"""Arrays of records: their fields, one or several, read, assigned and sorted by."""

FORMS = """
R["a"]
R["a"] + R["b"]
R["b"].mean()
R[0]["a"]
R[1:]["c"]
R["none"]
R[["a", "c"]]
R[["c", "a"]]
R[["a"]]["a"]
R[["a", "none"]]
R[["b", "c"]][1:3]["b"]
R[1:3][["b", "c"]]
R["a"] = 7; R
R["b"][1] = 8; R
R[["a", "b"]] = (7, 8.5); R
A = R[["b"]]; A["b"] = 1; R
A = R[["c"]]; R["c"] = False; A
R[["a", "none"]] = (1, 2); R
R[R["a"] == 3]
R[[0, 2]]["b"]
np.sort(R)
np.sort(R, order="a")
np.sort(R, order="b")
np.sort(R, order=["c", "b"])
np.sort(R, order="none")
np.sort(X, order="a")
np.argsort(R)
np.argsort(R, order="a")
np.argsort(R, order=["c"])
np.argsort(R, order="none")
np.partition(R, 1, order="b")[1]
np.sort(R.reshape(2, 2), axis=0, order="a")
np.sort(R.reshape(2, 2), axis=None, order="b")
np.argsort(R.reshape(2, 2), order="b")
R.sort(order="b"); R
R.argsort(order=["a", "b"])
R[1] = (9, 9.5, True); R
R[0:2] = [(1, 2.0, True), (3, 4.0, False)]; R
R[0:2] = (1, 2.5, True); R
R[R["c"]] = (7, 7.5, False); R
R[[0, 3]] = [(7, 7.5, True), (8, 8.5, True)]; R
R[1] = R[2]; R
R[1] = [1, 2.0, True]; R
R[1] = (1, 2); R
R[1] = (V[0], W[1], B[0, 0]); R
R[0]["a"] = 77; R
A = R[2]; A["b"] = 5; R
A = R[2]; R["b"] = 6; A
[r.__setitem__("a", 1) for r in R]; R
np.put(R, [0], (3, 3.0, True)); R
np.full(3, (1, 2.0, True), dtype=R.dtype)
np.array([(1, 2.0), (3, 4.5)], dtype=[("p", "i4"), ("q", "f8")])
np.array([(J[0], 2.0)], dtype=[("p", "i4"), ("q", "f8")])
np.asarray(((1, 2.0), (3, 4.5)), dtype=[("p", "i4"), ("q", "f8")])
R == R
R != R[::-1]
R == R[1]
R[0] == R[0]
R == R["a"]
R == 5
R == None
R != "a"
R < R
np.array_equal(R, R)
np.array_equal(R, R[::-1])
A = np.array([(1, (2.0, 3.0)), (2, (4, 5))], [("p", "i4"), ("q", "f8", (2,))]); A["q"].shape, A["q"]
A = np.array([(1, (2.0, 3.0)), (2, (4, 5))], [("p", "i4"), ("q", "f8", (2,))]); A["q"][0, 1] = 7; A
A = np.array([(1, (2.0, 3.0)), (2, (4, 5))], [("p", "i4"), ("q", "f8", (2,))]); A["q"] = [8, 9]; A
A = np.array([(1, (2.0, 3.0)), (2, (4, 5))], [("p", "i4"), ("q", "f8", (2,))]); A["q"] *= 2; A
A = np.array([(1, (2.0, 3.0)), (2, (4, 5))], [("p", "i4"), ("q", "f8", (2,))]); A[["q"]]["q"]
A = np.array([(1, (2.0, 3))], [("p", "i4"), ("q", [("r", "f8"), ("s", "i2")])]); A["q"]["r"]
"""
