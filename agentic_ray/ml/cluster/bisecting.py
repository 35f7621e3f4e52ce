"""Bisecting k-means over rows in chunks: leaves of a tree are cut in two by 2-means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import sklearn.cluster as sk
from sklearn.cluster._bisect_k_means import _BisectingTree
from sklearn.utils import check_array

from agentic_ray.array import Array
from agentic_ray.errors import InvalidArgumentError
from agentic_ray.ml.base import Distributed, begin, is_distributed, seed_of, transformed
from agentic_ray.ml.cluster import halves
from agentic_ray.ml.data import rows
from agentic_ray.ml.moments import column_moments, merged_columns
from agentic_ray.ml.passes import Passes

_TRIALS = 2
"""Rows among which k-means++ chooses the second of two centres: scikit-learn's 2 + log(2)."""


@dataclass(eq=False)
class Leaf:
    """A cluster of the tree that bisecting makes, and its two halves once they were computed.

    Attributes
    ----------
    slot : int
        Its number in a pass.
    path : int
        Its place in the tree: those below it are ``2 path`` and ``2 path + 1``. Random numbers go
        by it, so that they do not depend on the order in which leaves are cut.
    centre : ndarray of shape (n_features,)
    score, inertia : float
        The leaf of the greatest score is cut first.
    """

    slot: int
    path: int
    centre: Any
    score: float
    inertia: float
    halves: tuple[Leaf, Leaf] | None = None
    label: int = -1


class BisectingKMeans(Distributed, sk.BisectingKMeans):
    """Bisecting k-means over rows in chunks; parameters as `sklearn.cluster`'s.

    All clusters that may be cut next are cut side by side: an iteration of Lloyd's for all of them
    is a pass, so there are about as many passes as the tree is high times the iterations of a cut.
    A cut of a cluster does not depend on the others, and only those are kept that scikit-learn's
    order takes. ``algorithm="elkan"`` is refused. ``labels_`` of an `Array` or `Rows` are lazy, and
    of the same kind.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0], [50.0], [51.0]])
    >>> model = ml.BisectingKMeans(3, random_state=0).fit(X)
    >>> float(model.inertia_), sorted(model.cluster_centers_[:, 0].tolist())
    (1.5, [0.5, 10.5, 50.5])
    """

    def fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, *, checkpoint: Any = None
    ) -> Any:  # fmt: skip
        """Fit the model; one pass over the rows for each iteration of the cuts under way.

        Parameters
        ----------
        X : array-like, sparse matrix, Array or Rows of shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, Array or Rows of shape (n_samples,), optional
        checkpoint : path or URL of a folder, optional
            Keeps what was gone through; a fit that is begun again goes on there.

        Returns
        -------
        self
        """
        run = begin(self, X, None, sample_weight, checkpoint=checkpoint, accept_sparse=True)
        if self.algorithm == "elkan":
            raise InvalidArgumentError("algorithm='elkan' is not taken here; use 'lloyd'")
        if run.n < self.n_clusters:
            raise ValueError(f"n_samples={run.n} should be >= n_clusters={self.n_clusters}.")
        # Distances are made of products: near the mean, without weights as theirs, they keep their
        # digits. Sparse rows stay as they are.
        plain = Passes(run.x, None, None, run.check, run._log, run.progress)
        _, mean, _ = plain.run(column_moments, combine=merged_columns)
        run.check = plain.check
        shift = None if run.is_sparse else mean
        kind = np.float32 if run.x.dtype == np.float32 else np.float64
        cutting = Cutting(run, self, shift, seed_of(run, self.random_state))
        root = Leaf(0, 1, mean if shift is None else np.zeros(run.p), 0.0, 0.0)
        if self.n_clusters == 1:
            root.inertia = float(cutting.scores([(root, root.centre[None])])[0][0, 0])
        leaves = cutting.leaves(root)
        for label, leaf in enumerate(leaves):
            leaf.label = label
        if shift is not None:
            self._X_mean = shift.astype(kind)
        centres = np.array([leaf.centre for leaf in leaves])
        self.cluster_centers_ = (centres if shift is None else centres + shift).astype(kind)
        self.inertia_ = float(sum(leaf.inertia for leaf in leaves))
        self._bisecting_tree = _as_theirs(root, kind)
        self._n_features_out = self.n_clusters
        self._n_threads = 1
        final = {leaf.slot: leaf.label for leaf in leaves}
        step = halves.Labels(shift, cutting.routing(leaves), final)
        if is_distributed(X):
            self.labels_ = transformed(rows(X), step, isinstance(X, Array))
        else:
            self.labels_ = run.x.then(step).compute()
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and the cluster of each row."""
        return self.fit(X, y, sample_weight).labels_


def _as_theirs(leaf: Leaf, kind: Any) -> Any:
    """The tree as scikit-learn's `predict` goes down it; it may be as high as it has leaves."""
    made = _BisectingTree(leaf.centre.astype(kind), None, leaf.score)
    pending = [(leaf, made)]
    while pending:
        ours, theirs = pending.pop()
        if ours.label >= 0:
            theirs.label = ours.label
            continue
        assert ours.halves is not None
        theirs.left, theirs.right = (
            _BisectingTree(half.centre.astype(kind), None, half.score) for half in ours.halves
        )
        pending += zip(ours.halves, (theirs.left, theirs.right), strict=True)
    return made


class Cutting:
    """The passes that cut leaves in two."""

    def __init__(self, run: Passes, estimator: Any, shift: Any, seed: int) -> None:
        self._run, self._estimator = run, estimator
        self._shift, self._seed = shift, seed
        self._parents: dict[int, Leaf] = {}
        self._slots = 1

    def leaves(self, root: Leaf) -> list[Leaf]:
        """The leaves of the tree, from left to right."""
        wanted = self._estimator.n_clusters
        found = [root]
        while len(found) < wanted:
            # Whatever the halves will be, no other leaves of now are cut than these.
            order = sorted(range(len(found)), key=lambda at: (-found[at].score, at))
            first = [found[at] for at in order[: wanted - len(found)]]
            self._cut([leaf for leaf in first if leaf.halves is None])
            while len(found) < wanted:
                at = max(range(len(found)), key=lambda at: (found[at].score, -at))
                halves_of_it = found[at].halves
                if halves_of_it is None:
                    break
                self._parents.update({half.slot: found[at] for half in halves_of_it})
                found[at : at + 1] = halves_of_it
            self._run.progress.iteration(float(sum(leaf.inertia for leaf in found)))
        return found

    def routing(self, leaves: list[Leaf]) -> Any:
        """The cuts on the way to these leaves, upper ones first."""
        met: dict[int, Leaf] = {}
        for leaf in leaves:
            above = self._parents.get(leaf.slot)
            while above is not None and above.slot not in met:
                met[above.slot] = above
                above = self._parents.get(above.slot)
        found = []
        for leaf in sorted(met.values(), key=lambda one: one.slot):
            assert leaf.halves is not None
            left, right = leaf.halves
            found.append((leaf.slot, left.slot, right.slot, np.array([left.centre, right.centre])))
        return tuple(found)

    def scores(self, pairs: list[tuple[Leaf, Any]]) -> tuple[Any, Any]:
        """Inertia and number of rows of the halves that centres make of leaves."""
        found = self._pass(halves.scores, pairs)
        return found[0], found[1]

    def _pass(self, kernel: Any, pairs: list[tuple[Leaf, Any]], *more: Any, **options: Any) -> Any:
        leaves = [leaf for leaf, _ in pairs]
        given = tuple([(leaf.slot, held) for leaf, held in pairs])
        return self._run.run(kernel, self._shift, self.routing(leaves), given, *more, **options)

    def _cut(self, leaves: list[Leaf]) -> None:
        """Find the halves of leaves."""
        best: dict[int, tuple[float, Any, Any, Any]] = {}
        for turn in range(self._estimator.n_init):
            pairs = self._iterated(self._starts(leaves, turn))
            inertias, counts = self.scores(pairs)
            for (leaf, centres), inertia, count in zip(pairs, inertias, counts, strict=True):
                total = float(inertia.sum())
                if leaf.slot not in best or total < best[leaf.slot][0] * (1 - 1e-6):
                    best[leaf.slot] = (total, centres, inertia, count)
        by_inertia = self._estimator.bisecting_strategy == "biggest_inertia"
        for leaf in leaves:
            _, centres, inertia, count = best[leaf.slot]
            score = inertia if by_inertia else count
            made = [
                Leaf(self._slots + at, 2 * leaf.path + at, centres[at], float(score[at]),
                     float(inertia[at]))
                for at in (0, 1)
            ]  # fmt: skip
            self._slots += 2
            leaf.halves = (made[0], made[1])

    def _iterated(self, pairs: list[tuple[Leaf, Any]]) -> list[tuple[Leaf, Any]]:
        """Lloyd's iterations in each leaf until its centres rest."""
        centres = {leaf.slot: held for leaf, held in pairs}
        active = [leaf for leaf, _ in pairs]
        for _ in range(self._estimator.max_iter):
            given = [(leaf, centres[leaf.slot]) for leaf in active]
            sums, weights = self._pass(halves.assign, given)
            self._fill(given, sums, weights)
            still = []
            for at, (leaf, held) in enumerate(given):
                own = weights[at][:, None]
                moved = np.where(own > 0, sums[at] / np.where(own > 0, own, 1.0), held)
                centres[leaf.slot] = moved
                if float(((moved - held) ** 2).sum()) > self._estimator.tol:
                    still.append(leaf)
            active = still
            if not active:
                break
        return [(leaf, centres[leaf.slot]) for leaf, _ in pairs]

    def _fill(self, pairs: list[tuple[Leaf, Any]], sums: Any, weights: Any) -> None:
        """Give a half without rows the row that is farthest from its centre."""
        empty = [at for at in range(len(pairs)) if (weights[at] == 0).any()]
        if not empty:
            return
        found = self._pass(
            halves.farthest, [pairs[at] for at in empty], combine=halves.merged_farthest
        )
        for at, (distances, points, own, labels, _) in zip(empty, found, strict=True):
            if not len(distances) or distances[0] <= 0:
                continue  # all rows lie on centres
            bare = int(np.flatnonzero(weights[at] == 0)[0])
            sums[at][bare], weights[at][bare] = points[0] * own[0], own[0]
            sums[at][labels[0]] -= points[0] * own[0]
            weights[at][labels[0]] -= own[0]

    # --- where to start ----------------------------------------------------------------------

    def _starts(self, leaves: list[Leaf], turn: int) -> list[tuple[Leaf, Any]]:
        """Two centres for each leaf."""
        init = self._estimator.init
        if callable(init):
            return [(leaf, self._called(leaf, turn)) for leaf in leaves]
        first = self._drawn([(leaf, None) for leaf in leaves], 2 if init == "random" else 1, turn)
        if init == "random":
            return [
                (leaf, _two(held, leaf.centre)) for leaf, held in zip(leaves, first, strict=True)
            ]
        starts = [
            (leaf, held if len(held) else leaf.centre[None])
            for leaf, held in zip(leaves, first, strict=True)
        ]
        more = self._drawn(starts, _TRIALS, turn)
        tried = [
            (leaf, tuple([np.array([start[0], one]) for one in (held if len(held) else start)]))
            for (leaf, start), held in zip(starts, more, strict=True)
        ]
        costs = self._pass(halves.costs, tried, combine=halves.both_costs)
        return [
            (leaf, pairs[int(np.argmin(cost))])
            for (leaf, pairs), cost in zip(tried, costs, strict=True)
        ]

    def _drawn(self, starts: list[tuple[Leaf, Any]], count: int, turn: int) -> list[Any]:
        """Random rows of each leaf: by weight, or by weight and distance from a first centre."""
        stage = 0 if starts[0][1] is None else 1
        given = [(leaf, ((self._seed, leaf.path, turn, stage), held)) for leaf, held in starts]
        numbers = range(len(self._run.x.lengths))
        found = self._pass(
            halves.draw, given, count, combine=halves.merged_draws, numbered=list(numbers)
        )
        return [drawn for _, drawn, _ in found]

    def _called(self, leaf: Leaf, turn: int) -> Any:
        """Centres that a function of the user's makes of the rows of a leaf."""
        run = self._run
        if not run.is_here:
            raise InvalidArgumentError(
                "init= of a function is given all of X, which is in chunks here; use 'k-means++' "
                "or 'random'"
            )
        whole = run.check.of_x(run.x.compute())
        own = halves.slots_of(whole, self._shift, self.routing([leaf])) == leaf.slot
        block = halves.centred(whole[np.flatnonzero(own)], self._shift)
        state = np.random.RandomState((self._seed + leaf.path + turn) % (1 << 32))
        made = self._estimator.init(block, 2, random_state=state)
        centres = check_array(made, dtype=np.float64, order="C")
        if centres.shape != (2, run.p):
            raise ValueError(
                f"The shape of the initial centers {centres.shape} does not match the number of "
                f"clusters 2 and of features of the data {run.p}."
            )
        return centres


def _two(drawn: Any, centre: Any) -> Any:
    """Two centres of the rows that were drawn; a leaf may have fewer."""
    if len(drawn) >= 2:
        return drawn
    return np.repeat(drawn if len(drawn) else centre[None], 2, axis=0)
