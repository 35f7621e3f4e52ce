"""`Ledger`: writes of the holder of a lease, each of which is known to have happened or not.

Each attempt to write leaves a mark of its own in the lease's row, ``beat``, and expects the mark
of the last write there. So one look at the row tells what became of an attempt whose answer was
lost, and nothing can be written by one that has lost the lease.
"""

from __future__ import annotations

from collections.abc import Callable

from agentic_ray.errors import JournalFencedError
from agentic_ray.master import lease
from agentic_ray.master.database import CommitUnknownError, Database, Transaction

Work = Callable[[Transaction], None]


class Ledger:
    """The only writer of a journal, until another takes the lease. For one thread.

    Parameters
    ----------
    database : Database
    token : int
        Of the lease, just taken.
    """

    def __init__(self, database: Database, token: int) -> None:
        self._database = database
        self._token = token
        self._mark = 0
        self._attempts = 0
        # Which mark in the row says that the attempt in doubt took effect, and which that not.
        self._verdicts: dict[int, bool] = {}

    @property
    def in_doubt(self) -> bool:
        """Nothing may be written before `settle` has told what became of the last attempt."""
        return bool(self._verdicts)

    def write(self, work: Work) -> None:
        """Let ``work`` write in one transaction.

        Raises
        ------
        CommitUnknownError
            It may have taken effect: ask `settle`, until it answers.
        JournalFencedError
            Another has the lease; nothing was written, and nothing ever will be.
        JournalError
            Nothing was written.
        """
        assert not self.in_doubt
        mark = self._next_mark()
        try:
            with self._database.transaction() as transaction:
                if not transaction.change(
                    "UPDATE lease SET beat = :mark "
                    "WHERE id = 1 AND token = :token AND beat = :expected",
                    {"mark": mark, "token": self._token, "expected": self._mark},
                ):
                    raise _fenced()
                work(transaction)
        except CommitUnknownError:
            self._verdicts = {self._mark: False, mark: True}
            raise
        self._mark = mark

    def settle(self) -> bool:
        """Whether the write in doubt took effect. Afterwards that is certain for good.

        Raises
        ------
        JournalFencedError
            Another has the lease. What we wrote before that can be read.
        JournalError
            Not known yet; ask again.
        """
        mark = self._next_mark()
        try:
            with self._database.transaction() as transaction:
                token, found, _ = lease.row(transaction)  # waits for an attempt under way
                if token != self._token or found not in self._verdicts:
                    raise _fenced()
                happened = self._verdicts[found]
                # The answer is itself a write: of an attempt that has failed nothing can come
                # back, not even out of the log of a database that crashes now.
                transaction.change("UPDATE lease SET beat = :mark WHERE id = 1", {"mark": mark})
        except CommitUnknownError:
            self._verdicts[mark] = happened
            raise
        self._mark = mark
        self._verdicts = {}
        return happened

    def release(self) -> None:
        """Let the next master take the lease at once."""
        with self._database.transaction() as transaction:
            lease.release(transaction, self._token)

    def _next_mark(self) -> int:
        self._attempts += 1
        return self._attempts


def _fenced() -> JournalFencedError:
    return JournalFencedError(
        "another master has taken this journal over; this one writes no more and stops"
    )
