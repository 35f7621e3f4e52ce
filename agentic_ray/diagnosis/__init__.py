"""Finds faults of a machine or a cluster and names their remedies: `agentic-ray doctor`.

`findings` judges what was read (pure functions), `machine` reads one machine, `cluster` has every
node of a cluster read itself and compares them, `leftovers` finds what dead programs left behind.
"""
