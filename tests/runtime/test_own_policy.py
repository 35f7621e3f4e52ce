"""A policy object of the user's own, in a real session: it places, and it may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.slow
def test_a_policy_of_the_users_own_places_and_is_named_when_it_errs(
    program: Callable[[str], Any],
) -> None:
    """One session, as starting one is what takes long."""
    one = program(
        """
        import agentic_ray as ar
        from agentic_ray.errors import PolicyError
        from agentic_ray.schedule import Placement

        WRONG = {
            "nowhere": lambda ready: [Placement(ready[0].key, "nowhere", "cpu", None, None, "")],
            "forgets": lambda ready: [],
            "raises": lambda ready: 1 / 0,
        }

        class Own:
            name = "own"
            wrong = ""

            def place(self, ready, cluster, model):
                if self.wrong:
                    return WRONG[self.wrong](ready)
                return [
                    Placement(bundle.key, device.node_id, device.device, None, None, "as I like")
                    for bundle, device in zip(ready, cluster.with_room(("cpu",)))
                ]

        own = Own()
        ar.init(num_cpus=1, policy=own)

        @ar.workload("lengths")
        def lengths(words):
            return ar.map_reduce(lambda word: len(word), words, chunk_size=1)

        for number, wrong in enumerate(["", *WRONG, ""]):
            own.wrong = wrong
            job = ar.submit(lengths, ["x" * number, "bbb", "cc"])
            if not wrong:
                assert job.result(60) == [number, 3, 2]
                found = job.placements()
                assert sum(p.items for p in found) == 3, found
                assert {p.reason for p in found} == {"as I like"}, found
                continue
            try:
                job.result(60)
            except PolicyError as error:
                assert "'own'" in str(error), error
            else:
                raise AssertionError(wrong)
        ar.shutdown()
        print("fine")
        """
    )
    assert "fine" in one.run()
