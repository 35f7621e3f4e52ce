"""Assigning: by index, through views, and by functions that write to their argument."""

FORMS = """
X[0] = 5; X
X[0, 1] = 5; X
X[:, 2] = [1, 2, 3, 4]; X
X[1:3, ::2] = Y[0:2, 1::2]; X
X[[0, 2]] = 1; X
X[[0, 2], [1, 1]] = [7, 8]; X
X[[0, 0, 0], [1, 1, 1]] = [7, 8, 9]; X
X[X > 0] = 0; X
X[X > 0] = X[X > 0] * 2; X
X[X > 0] += 1; X
X[B] = 0; X
X[numpy.array([True, False, True, False])] = 3; X
X[:, numpy.array([True, False, True, False, True, True])] = -1; X
X[..., 0] = 9; X
X[None, 1] = 4; X
X[0] = [1, 2]; X
X[9] = 1; X
X[0] = "abc"; X
X[0] = 1j; X
X[0] = C[0]; X
I[0] = numpy.nan; I
I[0, 0] = numpy.float64("nan"); I
I[0] = 1.9; I
I[0] = 2**70; I
I[0, 0] = [1.5]; I
I[0, 1] = X.mean(); I
B[0] = 5; B
U[0] = 300; U
C[0] = 1; C
X[0] = None; X
X[-1][-1] = 100; X
X[0][1] = 5; X
X.T[0] = 3; X
X.T[1:3][0] = 3; X
X.reshape(-1)[5] = 11; X
X.ravel()[:3] = 0; X
X.flatten()[:3] = 0; X
X.T.reshape(-1)[0] = 1e6; X
X.real[0] = 1; X
C.real = 0; C
C.imag[1:] = 7; C
C.real += 1; C
C.imag *= 2; C
X.flat[3] = 8; X
X.flat[::2] = [1, 2, 3]; X
X.flat = 7; X
list(X.flat)
len(X.flat)
X.flat[5]
[row.__setitem__(slice(None), i) for i, row in enumerate(X)]; X
[row.__iadd__(1) for row in X]; X
[t.__imul__(2) for t in T[0]]; T
A = X[1]; X[1] = 0; A
A = X[1]; A += 1; X
A = X[1].copy(); A += 1; X
A = X.T; X[0, 0] = 55; A
A = X[1:][1:]; A[0] = -1; X
A = X[:, ::-1]; A[0] = [1, 2, 3, 4, 5, 6]; X
A = X[0, 0]; X[0, 0] = 9; A
V[0], V[1] = V[1], V[0]; V
A = X.swapaxes(0, 1); A[2] = 0; X
A = T.transpose(2, 0, 1); A[0] = 1; T
A = np.expand_dims(X, 0); A[0, 1] = 1; X
A = np.squeeze(X[None]); A[1] = 1; X
A = np.moveaxis(T, 0, -1); A[..., 0] = 0; T
A = np.flip(X, axis=0); A[0] = 0; X
A = np.broadcast_to(V, (3, 12)); A[0] = 1; V
A = np.split(X, 2); A[1][:] = 0; X
A = X.astype(float); A[0] = 0; X
A = X.sum(); K = A; A += 1; K
A = np.asarray(Z); A += 1; Z
A = np.array(Z); A += 1; Z
Z[()] = 4; Z
Z[...] = 4; Z
X += 1; X
X -= Y; X
X *= [1, 2, 3, 4, 5, 6]; X
X **= 2; X
X //= 2; X
X %= 2; X
X /= 2; X
I /= 2; I
I += 1.5; I
I += 2; I
I <<= 1; I
B &= True; B
B |= (X > 0); B
B ^= B; B
U += 1; U
U += 300; U
F += X; F
X += C; X
X += numpy.ones((2, 4, 6)); X
X.fill(3); X
I.fill(2.7); I
X.fill([1, 2]); X
X.sort(); X
X.sort(axis=0); X
X.sort(0); X
X[1].sort(); X
V.sort(); V
V[::2].sort(); V
X.T.sort(); X
X.put([0, 5], [1, 2]); X
X.put([0, 99], 1); X
X.put([0, 99], 1, mode="clip"); X
X.put([0, -99], 1, mode="wrap"); X
np.put(X, [0, 1, 2], [7, 8]); X
np.put(X, [], [1]); X
np.put(I, [1], 2.5); I
np.put(X.T, [1], 2.5); X
np.place(X, X > 0, [1, 2, 3]); X
np.place(X, X > 99, []); X
np.place(X, X > 0, []); X
np.place(I, I > 2, [44, 55]); I
np.putmask(X, X > 0, 5); X
np.putmask(X, X > 0, [1, 2, 3]); X
np.putmask(X, X > 0, Y); X
np.putmask(X, [True], 0); X
np.copyto(X, Y); X
np.copyto(X, 3); X
np.copyto(X, V[:6]); X
np.copyto(X, Y, where=B); X
np.copyto(I, X); I
np.copyto(I, X, casting="unsafe"); I
np.copyto(I, 2.5); I
np.copyto(X, V); X
np.copyto(X[0], 1); X
np.fill_diagonal(Q, 0); Q
np.fill_diagonal(X, [1, 2, 3]); X
np.fill_diagonal(X.T, 4, wrap=True); X
np.fill_diagonal(V, 1); V
np.fill_diagonal(T, 1); T
np.put_along_axis(X, np.argmax(X, axis=1)[:, None], 99, axis=1); X
np.put_along_axis(X, np.asarray([[0], [1], [2], [3]]), 0, 1); X
np.put_along_axis(X, np.asarray([5, 6]), [1, 2], None); X
np.put_along_axis(X, np.asarray([1.5]), [1, 2], None); X
numpy.add.at(X, [0, 0, 1], 1); X
numpy.add.at(V, [0, 0, 1], [1, 2, 3]); V
numpy.add.at(X, ([0, 0, 1], [1, 1, 2]), 1); X
numpy.subtract.at(I, (slice(None), [0, 0]), 1); I
numpy.maximum.at(V, J, W); V
numpy.negative.at(V, [0, 1]); V
numpy.add.at(I, [0], 1.5); I
numpy.add(X, Y, out=X); X
numpy.multiply(X, 2, out=X); X
numpy.add(I, 1.5, out=I); I
numpy.sqrt(P, out=P); P
X.resize(2, 3); X
X.resize((5, 6)); X
X.view(numpy.int64)
X.view(numpy.int64)[0] = 0; X
X.byteswap()
X.byteswap(True); X
X.item(3)
X.item((1, 2))
X.item(1, 2)
X.item()
Z.item()
X.item(99)
X.tobytes()
X.tolist()
X.strides
X.T.strides
X[::2].strides
X.base is None
X[0].base is X
X.T.flags.f_contiguous
X.copy().flags.c_contiguous
X.itemsize
X.nbytes
X.dumps() != b""
"""

DIFFERENT = {
    "protocol: A = np.asarray(Z); A += 1; Z": "NumPy's own asarray makes a NumPy array: a copy",
}

LEFT_OUT = {
    "ndarray.ctypes": "chunks have no address",
    "ndarray.data": "chunks have no address",
    "ndarray.getfield": "records: x['name']; other types: x.view(dtype)",
    "ndarray.setfield": "records: x['name'] = value",
    "ndarray.setflags": "arrays are always writable; to forbid it hand out a copy",
}
