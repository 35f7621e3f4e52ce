"""Calls of plain Python functions in worker processes: what `Executor`, `Pool` and joblib share.

``parcels`` packs arguments and results, ``worker`` is what runs in a process, ``batches`` decides
how many calls travel together, ``engine`` queues, sends and settles calls, ``gathered`` keeps the
results of many calls.
"""
