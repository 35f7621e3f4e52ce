"""The decisions are those that were stored: a change of the code which is to keep them keeps them.

See ``decisions`` for how to store them anew.
"""

from __future__ import annotations

import json

import decisions
import pytest


def test_the_decisions_are_the_stored_ones() -> None:
    stored = json.loads(decisions.STORED.read_text())
    if stored.pop("platform") != decisions.platform():
        pytest.skip("the digests were stored where logarithms have other last bits")
    found = decisions.decisions()
    assert found.keys() == stored.keys()
    differing = {name: digest for name, digest in found.items() if digest != stored[name]}
    assert not differing, "decided otherwise; if that is meant, run decisions.py --write"


def test_the_digests_tell_policies_workloads_and_faults_apart() -> None:
    """Only ``priority`` decides as ``load_balance`` where all bundles have one priority."""
    stored = json.loads(decisions.STORED.read_text())
    runs = [digest for name, digest in stored.items() if "," in name and "priority" not in name]
    assert len(runs) == len(set(runs)) == 2 * 5 * len(decisions.WORKLOADS)
