"""Non-negative factorisation of rows in chunks."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.linalg
import sklearn.decomposition as sk
from sklearn.decomposition._cdnmf_fast import _update_cdnmf_fast
from sklearn.decomposition._nmf import EPSILON, _check_init
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_non_negative

from agentic_ray.array import Array
from agentic_ray.array.core import evaluate
from agentic_ray.errors import LostDataError
from agentic_ray.ml.base import Distributed, begin, is_distributed, seed_of, without_empty
from agentic_ray.ml.checkpoints import both_fingerprints, fingerprint
from agentic_ray.ml.data import Rows, aligned, held_rows, rows
from agentic_ray.ml.decomposition import factors
from agentic_ray.ml.decomposition.components import MOST_COLUMNS, main_directions
from agentic_ray.ml.moments import merged_scatter, scatter
from agentic_ray.ml.passes import Passes

_TINY = float(np.finfo(np.float64).eps)


class NMF(Distributed, sk.NMF):
    """Non-negative factorisation of rows in chunks; parameters as `sklearn.decomposition`'s.

    Both solvers, all losses and penalties are scikit-learn's: an iteration is one pass, in which
    each chunk changes its rows of W, which stay where it is, and adds up what the next H depends
    on. From the same start (``init="custom"``) ``components_`` are scikit-learn's to 1e-8 relative
    to the greatest of them, after as many iterations. ``"nndsvd"`` and its variants take exact
    singular vectors of up to 4096 columns. Data in memory are scikit-learn's own to fit.

    `transform` solves for the rows of each chunk by itself, until it has converged there;
    `fit_transform` gives W as the fit has it.

    Examples
    --------
    >>> import numpy as np
    >>> import agentic_ray.array as xp
    >>> from agentic_ray import ml
    >>> W = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 1.0]])
    >>> X = W @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]])
    >>> model = ml.NMF(2, max_iter=5000, tol=1e-10).fit(xp.asarray(X, chunks=(2, 3)))
    >>> model.components_.shape, bool(model.reconstruction_err_ < 1e-3)
    ((2, 3), True)
    """

    def fit(
        self, X: Any, y: Any = None, *, W: Any = None, H: Any = None, checkpoint: Any = None
    ) -> Any:  # fmt: skip
        """Fit the model; one pass over the rows for each iteration.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
            Without negative values.
        y : ignored
        W : array-like, Array or Rows of shape (n_samples, n_components), optional
            Where to start, with ``init="custom"``.
        H : array-like of shape (n_components, n_features), optional
            As W.
        checkpoint : path or URL of a folder, optional
            Keeps the sums of each iteration; a fit that is begun again makes W anew from them, in
            one pass.

        Returns
        -------
        self
        """
        self._fitted(X, W, H, checkpoint)
        return self

    def fit_transform(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None, *, checkpoint: Any = None
    ) -> Any:  # fmt: skip
        """Fit the model, and return W: an `Array` of an `Array`, `Rows` of `Rows`.

        Parameters
        ----------
        X, y, W, H, checkpoint
            As of `fit`.
        """
        return self._fitted(X, W, H, checkpoint)

    def _fitted(self: Any, X: Any, W: Any, H: Any, checkpoint: Any) -> Any:
        if not is_distributed(X):
            if checkpoint is None:
                return sk.NMF.fit_transform(self, X, W=W, H=H)
            X = rows(X)
        run = begin(self, X, checkpoint=checkpoint, accept_sparse=True)
        self._check_params(run.x)
        total, squares, zeros = run.run(factors.facts)
        if self._beta_loss <= 0 and zeros:
            raise ValueError(
                "When beta_loss <= 0 and X contains zeros, the solver may diverge. Please add "
                "small values to X, or use a positive beta_loss."
            )
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        start, components = self._start(run, W, H, total / (run.n * run.p))
        components = components.astype(kind)
        penalties = self._compute_regularization(run.x)
        held = HeldRows(run, start, len(components))
        solve = self._descended if self.solver == "cd" else self._multiplied
        components, iterations = solve(run, held, components, penalties, squares)
        if iterations == self.max_iter and self.tol > 0:
            warnings.warn(
                f"Maximum number of iterations {self.max_iter} reached. Increase it to improve "
                "convergence.",
                ConvergenceWarning,
                stacklevel=3,
            )
        self.reconstruction_err_ = held.error(components, self._beta_loss)
        self.n_components_ = self._n_components = len(components)
        self.components_ = np.ascontiguousarray(components)
        self.n_iter_ = iterations
        return held.made(isinstance(X, Array))

    # --- where to start ----------------------------------------------------------------------

    def _start(self: Any, run: Passes, W: Any, H: Any, mean: float) -> tuple[Any, Any]:
        """A start of the rows of W, and the first H."""
        if self.init == "custom":
            given: tuple[Any, Any] = self._given(run, W, H)
            return given
        if W is not None or H is not None:
            warnings.warn(
                "When init!='custom', provided W or H are ignored. Set  init='custom' to use them "
                "as initialization.",
                RuntimeWarning,
                stacklevel=4,
            )
        if self._n_components == "auto":
            self._n_components = run.p
        count, least = int(self._n_components), min(run.n, run.p)
        init = self.init
        if init not in (None, "random") and count > least:
            raise ValueError(
                f"init = '{init}' can only be used when n_components <= min(n_samples, n_features)"
            )
        init = init or ("nndsvda" if count <= least else "random")
        seed = seed_of(run, self.random_state)
        if init == "random":
            scale = math.sqrt(mean / count)
            random = np.random.Generator(np.random.Philox(seed))
            first = np.abs(scale * random.standard_normal((count, run.p)))
            return factors.RandomStart(scale, seed), first
        return _singular(run, count, init, mean, seed)

    def _given(self: Any, run: Passes, W: Any, H: Any) -> tuple[Any, Any]:
        first = check_array(H)
        _check_init(first, (self._n_components, run.p), "NMF (input H)")
        own = aligned(without_empty(W) if isinstance(W, Rows) else W, run.x.lengths, "W")
        if own.ndim != 2 or own.shape[1] != len(first):
            raise ValueError(
                "Array with wrong second dimension passed to NMF (input W). Expected "
                f"{len(first)}, but got {own.shape[1] if own.ndim > 1 else 1}."
            )
        if first.dtype != run.x.dtype or own.dtype != run.x.dtype:
            raise TypeError(
                "H and W should have the same dtype as X. Got "
                f"H.dtype = {first.dtype} and W.dtype = {own.dtype}."
            )
        run.y = own.then(_not_negative)
        self._n_components = len(first)
        return factors.GivenStart(), first

    # --- solvers -----------------------------------------------------------------------------

    def _descended(
        self: Any, run: Passes, held: HeldRows, components: Any, penalties: Any, squares: float
    ) -> tuple[Any, int]:
        l1_rows, l1, l2_rows, l2 = penalties
        turned = np.ascontiguousarray(components.T)
        count = turned.shape[1]
        seed: Any = self.random_state
        if self.shuffle and not isinstance(seed, int | np.integer):
            seed = seed_of(run, seed)
        random = check_random_state(seed if self.shuffle else 0)
        order = np.arange(count, dtype=np.intp)
        first, iterations = 0.0, 0
        for iterations in range(1, self.max_iter + 1):  # noqa: B007
            if self.shuffle:
                order = np.asarray(random.permutation(count), dtype=np.intp)
            update = factors.Descent(turned.copy(), l1_rows, l2_rows, order)
            violation, product, inner = held.step(update)
            run.progress.iteration(_loss(squares, turned.T, product, inner))
            inner, above = inner.astype(turned.dtype), product.T.astype(turned.dtype)
            inner.flat[:: count + 1] += l2
            above = np.ascontiguousarray(above - l1) if l1 else np.ascontiguousarray(above)
            if self.shuffle:
                order = np.asarray(random.permutation(count), dtype=np.intp)
            violation += float(_update_cdnmf_fast(turned, inner, above, order))
            first = first or violation
            if not first or violation / first <= self.tol:
                break
        return turned.T, iterations

    def _multiplied(
        self: Any, run: Passes, held: HeldRows, components: Any, penalties: Any, squares: float
    ) -> tuple[Any, int]:
        beta = self._beta_loss
        l1_rows, l1, l2_rows, l2 = penalties
        gamma = 1.0
        if beta < 1:
            gamma = 1.0 / (2.0 - beta)
        elif beta > 2:
            gamma = 1.0 / (beta - 1.0)
        first = before = held.error(components, beta) if self.tol > 0 else 0.0
        iterations = 0
        for iterations in range(1, self.max_iter + 1):
            update = factors.Multiplication(components, beta, gamma, l1_rows, l2_rows)
            _, above, below = held.step(update)
            if beta == 2:
                run.progress.iteration(_loss(squares, components, above, below))
                below = below @ components
            elif beta == 1:
                below = np.where(below == 0, 1.0, below)[:, None]
            below = below + l1 + l2 * components if l1 or l2 else np.array(below)
            below[below == 0] = EPSILON
            change = above / below
            components = components * (change if gamma == 1 else change**gamma)
            if beta <= 1:
                components[components < _TINY] = 0.0
            if self.tol > 0 and iterations % 10 == 0:
                error = held.error(components, beta)
                if beta != 2:
                    run.progress.iteration(error**2 / 2)
                if (before - error) / first < self.tol:
                    break
                before = error
        return components, iterations


def _not_negative(block: Any) -> Any:
    check_non_negative(block, "NMF (input W)")
    return block


def _loss(squares: float, components: Any, product: Any, inner: Any) -> float:
    """Half the squared distance of X from ``W H``, from sums."""
    cross = float((product * components).sum())
    return 0.5 * (squares - 2.0 * cross + float((inner * (components @ components.T)).sum()))


def _singular(run: Passes, count: int, init: str, mean: float, seed: int) -> tuple[Any, Any]:
    """A start by singular vectors (C. Boutsidis, E. Gallopoulos, 2008)."""
    if run.p <= MOST_COLUMNS:
        weight, centre, spread, _ = run.run(scatter, combine=merged_scatter)
        values, vectors = scipy.linalg.eigh(spread + weight * np.outer(centre, centre))
        squares, right = values[::-1][:count], vectors[:, ::-1].T[:count]
    else:
        squares, right = main_directions(run, np.zeros(run.p), count, 10, 4, seed)
    singular = np.sqrt(np.maximum(squares, 0.0))
    real = squares > run.p * np.finfo(np.float64).eps * squares[0]
    directions = np.where(real, 1.0 / np.where(real, singular, 1.0), 0.0) * right.T
    above, below = run.run(factors.squares_of_parts, directions)
    positive = np.sqrt(above * (np.maximum(right, 0.0) ** 2).sum(axis=1))
    negative = np.sqrt(below * (np.minimum(right, 0.0) ** 2).sum(axis=1))
    signs = np.where(positive > negative, 1.0, -1.0)
    sizes = np.maximum(positive, negative)
    norms = np.sqrt(np.where(signs > 0, above, below))
    parts = np.maximum(right * signs[:, None], 0.0)
    own = np.linalg.norm(parts, axis=1)
    scales = np.sqrt(singular * sizes) * real
    left = np.where(norms > 0, scales / np.where(norms > 0, norms, 1.0), 0.0)
    first = np.where(own > 0, scales / np.where(own > 0, own, 1.0), 0.0)[:, None] * parts
    signs[0] = 0.0
    left[0] = math.sqrt(singular[0])
    first[0] = math.sqrt(singular[0]) * np.abs(right[0])
    first[first < 1e-6] = 0.0
    fill = 0.0 if init == "nndsvd" else mean
    more = seed if init == "nndsvdar" else None
    start = factors.SingularStart(directions, signs, left, fill, more)
    return start, factors.filled(first, fill, more, len(run.x.lengths))


class HeldRows:
    """The factor W. The rows of W for a chunk of data stay on the node that computed them.

    Rows that were lost, or that a resumed fit has not got, are computed anew when they are needed,
    from the start of the fit, by all updates since."""

    def __init__(self, run: Passes, start: Any, components: int) -> None:
        # Only the start needs what the user gave.
        self._run = Passes(run.x, None, None, run.check, run._log, run.progress)
        self._begin = run
        self._start, self._components = start, components
        self._digest = ""
        if run.y is not None and run._log is not None:  # of another W it is another fit
            given = Passes(run.y, None, None, replace(run.check, as_table=True), None, run.progress)
            self._digest = given.run(fingerprint, combine=both_fingerprints)
        self._past: list[Any] = []
        self._held: list[Any] | None = None

    def step(self, update: Any) -> Any:
        """Change the rows; return the sums that the kernel gives."""
        computed = False

        def compute() -> Any:
            nonlocal computed
            computed = True
            self._held, sums = self._with_rows(
                lambda held: self._run.keep(factors.iterated, update, numbered=held)
            )
            return sums

        found = self._run._logged(factors.iterated, (self._digest, update), compute)
        if not computed:  # the checkpoint has it
            self._held = None
        self._past.append(update)
        return found

    def error(self, components: Any, beta: float) -> float:
        """The root of twice the divergence of X from the product of the rows and H."""
        found: float = self._run._logged(
            factors.divergence,
            (components, beta),
            lambda: self._with_rows(
                lambda held: self._run.keep(factors.divergence, components, beta, numbered=held)
            )[1],
        )
        return math.sqrt(2.0 * max(found, 0.0))

    def made(self, as_array: bool) -> Any:
        """W as an `Array` or as `Rows`."""
        held = self._with_rows(lambda held: held)
        kind = np.float32 if self._run.x.dtype == np.float32 else np.float64
        sample = np.ones((min(self._run.n, 1), self._components), kind)
        found = held_rows(held, self._run.x.lengths, sample)
        return found.array(kind) if as_array else found

    def _with_rows(self, use: Callable[[list[Any]], Any]) -> Any:
        for left in reversed(range(evaluate.MOST_DEATHS)):
            try:
                if self._held is None:
                    self._held, _ = self._begin.keep(
                        factors.begun, self._start, self._components, tuple(self._past),
                        numbered=range(len(self._run.x.lengths)),
                    )  # fmt: skip
                return use(self._held)
            except LostDataError:
                self._held = None
                if not left:
                    raise
        raise AssertionError("the last round raises")
