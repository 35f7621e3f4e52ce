"""Methods and attributes of arrays, and functions that find elements, which no other table has."""

FORMS = """
[0, 1] * J[1]
J[1] * [0, 1]
(0, 1) * J[1]
[0, 1] * J[1:2]
[0.5] * V[1]
[2, 3] + J[1]
[0, 1] * np.asarray(3)
X[0, 0].is_integer()
V[0].as_integer_ratio()
J[1].bit_count()
J[1].numerator
X[0].is_integer()
C[0, 0].is_integer()
F.view("u1")
F.view("f8")
X.view(complex)
U.view("u2")
U.T.view("u2")
X.view([("p", "f8"), ("q", "f8")])["q"]
np.zeros((2, 3, 4)).view("f4").shape
np.zeros((3, 0)).view("f4").shape
X[:, :3].copy().view(complex)
X.T.view("f4")
X[:, ::2].view("f4")
Z.view("u1")
R.view("u1").shape
R.view("u1").reshape(-1, 13)[:, :4].copy().view("i4")
A = X.view("u4"); A[0] = 0; X
A = F.view("f8"); A[:] = 1.5; F
A = V.view("u4"); V[0] = 0; A
X.ndim
Z.ndim
X.size
E.size
X.shape
X.flags.c_contiguous
X.T.flags.owndata
X.device
X.to_device("cpu")
X.to_device("mars")
X.dtype
C.conj()
C.conjugate()
X.conj()
A = X[None]; A.squeeze()
A = X[None]; A.squeeze(0)
X.squeeze(axis=0)
X.nonzero()
J.nonzero()
Z.nonzero()
S.searchsorted(0.5)
S.searchsorted(V, side="right")
V.argsort()
X.argsort(axis=0)
A = __import__("io").BytesIO(); X.dump(A); len(A.getvalue()) > 0
np.nonzero(J)
np.nonzero(a=B)
np.nonzero([[1, 0], [0, 2]])
np.flatnonzero(J)
np.flatnonzero(a=[0, 1, 0, 2])
np.argwhere(J)
np.argwhere(a=B)
np.argwhere([0, 3])
np.from_dlpack(numpy.arange(3))
np.from_dlpack(numpy.arange(3), copy=True)
I /= 2; I
I += 0.5; I
I -= 1j; I
I @= numpy.eye(6); I
M += M; M
X + "a"
"a" * X
X @ "a"
str(I[:2])
str(X[0, :2] > 0)
"""

DIFFERENT: dict[str, str] = {}
