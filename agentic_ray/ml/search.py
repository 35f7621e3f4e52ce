"""Search for parameters, and splits of data in chunks.

Models of data in memory are fitted beside each other in worker processes of the session; the data
are put in the object store once. Models of data in chunks are fitted one after the other, each of
them on all cores; their folds are cut once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import joblib
import numpy as np
import scipy.sparse as sp
import sklearn.model_selection as sk
from joblib._parallel_backends import ThreadingBackend
from sklearn.base import is_classifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401  (it makes the class known)
from sklearn.metrics import get_scorer
from sklearn.utils import _safe_indexing
from sklearn.utils.metadata_routing import get_routing_for_object

from agentic_ray.array import Array
from agentic_ray.array.core import evaluate
from agentic_ray.graph import Codelet, CostHint, Task, TaskGraph
from agentic_ray.ml.base import is_distributed
from agentic_ray.ml.data import rows
from agentic_ray.ml.scoring import for_chunks
from agentic_ray.ml.shared_folds import folded

_WORTH_BYTES = 64 << 10
"""Larger arguments are put in the object store once, and not sent with each call."""
_names = itertools.count()


class _Held:
    """Stands for an argument that was put in the object store."""

    def __init__(self, at: int) -> None:
        self.at = at


def call_batch(items: list[Any], held: list[Any]) -> list[Any]:
    """The calls of a batch, one after the other."""
    return [
        function(
            *[held[a.at] if isinstance(a, _Held) else a for a in args],
            **{k: held[v.at] if isinstance(v, _Held) else v for k, v in kwargs.items()},
        )
        for function, args, kwargs in items
    ]


_CALLS = Codelet("ml.calls", call_batch, opaque=True, cost=CostHint(flops=1e9))


class SessionBackend(ThreadingBackend):
    """joblib's calls as tasks of the session: a thread waits for each that is under way."""

    supports_sharedmem = False
    uses_threads = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._stored: dict[int, tuple[Any, Any]] = {}

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Calls under way at once: some more than slots, so that none waits for this process."""
        if n_jobs == 1:
            return 1
        from agentic_ray.runtime import get_session

        slots = get_session().slots
        return 2 * slots if n_jobs is None or n_jobs < 0 else int(n_jobs)

    def submit(self, func: Any, callback: Any = None) -> Any:
        """Have a batch of calls run."""
        return super().submit(lambda: self._run(func), callback)

    def _run(self, batch: Any) -> Any:
        from agentic_ray.runtime import get_session

        held: list[Any] = []
        items = [
            (
                function,
                [self._sent(arg, held) for arg in args],
                {name: self._sent(arg, held) for name, arg in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
        key = f"ml.calls@{next(_names)}"
        task = Task.of(_CALLS, items, held, key=key)
        return get_session().submit(TaskGraph([task], [key])).result()[0]

    def _sent(self, value: Any, held: list[Any]) -> Any:
        size = getattr(value, "nbytes", 0) if isinstance(value, np.ndarray) else 0
        if sp.issparse(value):
            size = value.data.nbytes
        elif hasattr(value, "memory_usage") and hasattr(value, "iloc"):
            size = _WORTH_BYTES
        if size < _WORTH_BYTES:
            return value
        from agentic_ray.runtime import put

        found = self._stored.get(id(value))
        if found is None:  # it is kept with its value, so that no other takes its identity
            found = self._stored[id(value)] = (value, put(value))
        held.append(found[1])
        return _Held(len(held) - 1)

    def terminate(self) -> None:
        """End the threads, and let go of what was put."""
        super().terminate()
        self._stored.clear()


joblib.register_parallel_backend("agentic_ray", SessionBackend)


@contextmanager
def parallel() -> Iterator[None]:
    """Run what scikit-learn gives to joblib in worker processes of the session.

    Examples
    --------
    >>> from agentic_ray import ml
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import cross_val_score
    >>> with ml.parallel():
    ...     scores = cross_val_score(Ridge(), [[0.0], [1.0], [2.0], [3.0]], [0, 1, 2, 3], cv=2)
    >>> len(scores)
    2
    """
    with joblib.parallel_config(backend="agentic_ray", n_jobs=-1):
        yield


def _in_chunks(X: Any) -> bool:
    """Whether models are fitted one after the other."""
    if is_distributed(X):
        return True
    return getattr(X, "nbytes", 0) > evaluate.LOCAL_BYTES


def _scoring(scoring: Any) -> Any:
    """Return the scorers of a search, made to take data in chunks."""
    if isinstance(scoring, str):
        return for_chunks(get_scorer(scoring))
    if isinstance(scoring, list | tuple | set):
        if not all(isinstance(name, str) for name in scoring) or not scoring:
            return scoring  # scikit-learn says what is wrong with it
        return {name: for_chunks(get_scorer(name)) for name in scoring}
    if isinstance(scoring, dict):
        return {name: for_chunks(get_scorer(one)) for name, one in scoring.items()}
    return for_chunks(scoring)


class InOrder:
    """A splitter whose positions are sorted: rows of chunks are taken in their order.

    Parameters
    ----------
    cv : int, splitter, iterable or None
    estimator : estimator
        Folds of a classifier are stratified, where ``cv`` leaves that open.
    """

    def __init__(self, cv: Any, estimator: Any) -> None:
        self._cv, self._estimator = cv, estimator
        for name in ("shuffle", "random_state"):  # a search asks whether folds stay the same
            if hasattr(cv, name):
                setattr(self, name, getattr(cv, name))

    def _checked(self, y: Any) -> Any:
        return sk.check_cv(self._cv, y, classifier=is_classifier(self._estimator))

    def split(self, X: Any, y: Any = None, groups: Any = None, **options: Any) -> Iterator[Any]:
        """Sorted positions of the rows to train on and to test on, for each fold."""
        if groups is not None:
            options["groups"] = groups
        n = len(rows(X) if is_distributed(X) and not isinstance(X, Array) else X)
        shown = np.broadcast_to(np.zeros((1, 1)), (n, 1))
        for train, test in self._checked(y).split(shown, y, **options):
            yield np.sort(train), np.sort(test)

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of folds."""
        return int(self._checked(y).get_n_splits(None, y, groups))

    def get_metadata_routing(self) -> Any:
        """As the splitter's."""
        return get_routing_for_object(self._cv)


class _Search:
    """`fit` of a search."""

    def fit(self: Any, X: Any, y: Any = None, **params: Any) -> Any:
        """Fit a model for each fold and candidate, and one with the best parameters on all rows.

        Parameters
        ----------
        X : array-like, table, Array or Rows of shape (n_samples, n_features)
        y : array-like, Array or Rows of shape (n_samples,)
            Brought to this process: folds may depend on it.
        **params
            As scikit-learn's.

        Returns
        -------
        self
        """
        kind = next(k for k in type(self).__mro__ if k.__module__.startswith("sklearn."))
        if is_distributed(X):
            X = folded(rows(X))
            y = rows(y).compute() if is_distributed(y) else y
            own = self.scoring, self.cv
            self.scoring, self.cv = _scoring(self.scoring), InOrder(self.cv, self.estimator)
            try:
                with joblib.parallel_config(backend="sequential"):
                    return kind.fit(self, X, y, **params)  # type: ignore[attr-defined]
            finally:
                self.scoring, self.cv = own
                X.let_go()
        if _in_chunks(X) or self.n_jobs == 1:
            with joblib.parallel_config(backend="sequential"):
                return kind.fit(self, X, y, **params)  # type: ignore[attr-defined]
        with parallel():
            return kind.fit(self, X, y, **params)  # type: ignore[attr-defined]


class GridSearchCV(_Search, sk.GridSearchCV):
    """All combinations of parameters, by cross-validation; as `sklearn.model_selection`'s.

    Fits of data in memory, of any estimator, go to worker processes beside each other.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.arange(20.0)[:, None]
    >>> search = ml.GridSearchCV(ml.Ridge(), {"alpha": [0.1, 1e6]}, cv=2, n_jobs=1)
    >>> search.fit(X, X[:, 0]).best_params_
    {'alpha': 0.1}
    """


class RandomizedSearchCV(_Search, sk.RandomizedSearchCV):
    """Random combinations of parameters, by cross-validation; as `sklearn.model_selection`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.arange(20.0)[:, None]
    >>> search = ml.RandomizedSearchCV(ml.Ridge(), {"alpha": [0.1, 1e6]}, n_iter=2, cv=2, n_jobs=1)
    >>> search.fit(X, X[:, 0]).best_params_
    {'alpha': 0.1}
    """


class _SortedFolds:
    """Folds of fewer and fewer rows, in the order of the rows."""

    def __init__(self, folds: Any) -> None:
        self._folds = folds

    def split(self, X: Any, y: Any = None, **options: Any) -> Iterator[Any]:
        """Sorted positions of each fold."""
        for train, test in self._folds.split(X, y, **options):
            yield np.sort(train), np.sort(test)

    def get_n_splits(self, *given: Any, **options: Any) -> int:
        """The number of folds."""
        return int(self._folds.get_n_splits(*given, **options))


class HalvingGridSearchCV(_Search, sk.HalvingGridSearchCV):
    """All combinations on few rows, then the better ones on more; as `sklearn.model_selection`'s.

    Examples
    --------
    >>> import numpy as np
    >>> from agentic_ray import ml
    >>> X = np.arange(40.0)[:, None]
    >>> search = ml.HalvingGridSearchCV(ml.Ridge(), {"alpha": [0.1, 1e6]}, cv=2, n_jobs=1)
    >>> search.fit(X, X[:, 0]).best_params_
    {'alpha': 0.1}
    """

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
        if not isinstance(self.cv, InOrder):
            super()._run_search(evaluate_candidates, **context)
            return

        def evaluate(candidates: Any, cv: Any, **options: Any) -> Any:
            return evaluate_candidates(candidates, _SortedFolds(cv), **options)

        super()._run_search(evaluate, **context)


def train_test_split(
    *data: Any,
    test_size: Any = None,
    train_size: Any = None,
    random_state: Any = None,
    shuffle: bool = True,
    stratify: Any = None,
) -> list[Any]:
    """Random rows to train on and to test on, of several arrays or tables alike.

    Of data in chunks rows keep their order and stay in their chunks: which are taken is random.
    Data in memory go to scikit-learn's function.

    Parameters
    ----------
    *data : array-like, Array or Rows
        With equally many rows.
    test_size, train_size, random_state, shuffle, stratify
        As `sklearn.model_selection.train_test_split`'s.

    Returns
    -------
    list
        For each of ``data`` the rows to train on, and those to test on.

    Examples
    --------
    >>> import agentic_ray.array as xp
    >>> from agentic_ray import ml
    >>> train, test = ml.train_test_split(xp.arange(10), test_size=0.2, random_state=0)
    >>> len(train), len(test)
    (8, 2)
    """
    if not data:
        raise ValueError("At least one array required as input")
    options = {
        "test_size": test_size,
        "train_size": train_size,
        "random_state": random_state,
    }
    if not any(is_distributed(one) for one in data):
        found: list[Any] = sk.train_test_split(*data, shuffle=shuffle, stratify=stratify, **options)
        return found
    lengths = {len(one) if not is_distributed(one) else _rows_of(one) for one in data}
    if len(lengths) > 1:
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {sorted(lengths)}"
        )
    if stratify is not None and is_distributed(stratify):
        stratify = rows(stratify).compute()
    (n,) = lengths
    both = sk.train_test_split(np.arange(n), shuffle=shuffle, stratify=stratify, **options)
    parts = [np.sort(positions) for positions in both]
    return [taken(one, positions) for one in data for positions in parts]


def _rows_of(data: Any) -> int:
    return len(data) if isinstance(data, Array) else len(rows(data))


def taken(data: Any, positions: Any) -> Any:
    """Rows at sorted positions."""
    if isinstance(data, Array):
        return data[positions]
    return rows(data).take(positions) if is_distributed(data) else _safe_indexing(data, positions)
