"""Finds faults of a machine or a cluster and names their remedies: `agentic-ray doctor`.

`findings` judges values that were read (pure functions), `machine` reads one machine, `cluster`
lets every node of a cluster read itself and compares them, `leftovers` finds folders that dead
programs left behind.
"""
