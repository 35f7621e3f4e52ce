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
"""
