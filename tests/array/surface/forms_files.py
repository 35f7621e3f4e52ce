"""NumPy's functions for files, over files in memory and on disk."""

FORMS = """
A = __import__("io").BytesIO(); np.save(A, X); A.seek(0); np.load(A)
A = __import__("io").BytesIO(); np.save(file=A, arr=[1, 2], allow_pickle=False); A.seek(0); numpy.load(A)
A = __import__("io").BytesIO(); np.savez(A, X, w=V); A.seek(0); dict(np.load(A))
A = __import__("io").BytesIO(); np.savez(A, X); A.seek(0); K = np.load(A); K.files
A = __import__("io").BytesIO(); np.savez_compressed(A, X, allow_pickle=True, w=I); A.seek(0); dict(numpy.load(A))
A = __import__("io").BytesIO(b"nonsense"); np.load(A)
np.load("/there/is/no/such/file.npy")
np.load(file="/there/is/no/such/file.npy", mmap_mode="r")
np.save("/there/is/no/such/folder/file.npy", X)
A = __import__("io").StringIO(); np.savetxt(A, X); A.getvalue()
A = __import__("io").StringIO(); np.savetxt(A, I, "%d", ",", newline=";", header="h", footer="f", comments="!"); A.getvalue()
A = __import__("io").StringIO(); np.savetxt(fname=A, X=[1, 2]); A.getvalue()
np.savetxt(__import__("io").StringIO(), T)
np.loadtxt(["1 2", "3 4"])
np.loadtxt(["1,2", "# x", "3,4"], dtype=int, delimiter=",", skiprows=1)
np.loadtxt(["1 2", "3 4"], unpack=True)
np.loadtxt(fname=["1 2", "3 4"], usecols=1, max_rows=1, ndmin=1)
np.loadtxt(["1 a"])
np.loadtxt(["1 2", "3"])
np.loadtxt(["1 2"], like=X)
np.genfromtxt(["1,2", "3,"], delimiter=",")
np.genfromtxt(["1,2", "3,"], delimiter=",", filling_values=7, dtype=int)
np.genfromtxt(["a b", "1 2.5"], names=True)["b"]
np.genfromtxt(["1 2", "3"])
K = __import__("tempfile").mktemp(); X.tofile(K); np.fromfile(K)
K = __import__("tempfile").mktemp(); I.tofile(K, sep=" ", format="%d"); np.fromfile(file=K, dtype=int, count=3, sep=" ")
K = __import__("tempfile").mktemp(); X.tofile(K); np.fromfile(K, "float64", 2, "", 8)
K = __import__("tempfile").mktemp(); np.save(K, X); np.load(K + ".npy")
K = __import__("tempfile").mktemp() + ".npy"; np.save(K, X); np.save(K, X * 2); np.load(K, "r")
K = __import__("tempfile").mktemp() + ".npz"; np.savez(K, a=X); np.load(K)["a"]
K = __import__("tempfile").mktemp() + ".npz"; np.savez(K, a=X); np.load(K, mmap_mode="r")["a"]
"""

DIFFERENT: dict[str, str] = {}
