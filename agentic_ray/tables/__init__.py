"""Tables in parts: files read, filtered, grouped, joined, sorted and written where they are.

A part is a ``pyarrow.Table``, and pyarrow's kernels do the work on it. This is no library of data
frames: tables come in and go out as Arrow's.

>>> import agentic_ray as ar
>>> sales = ar.tables.from_arrow({"shop": ["north", "south", "north"], "price": [3, 4, 5]})
>>> sales.group_by("shop").agg({"price": "sum"}).to_pylist()
[{'shop': 'north', 'price_sum': 8}, {'shop': 'south', 'price_sum': 4}]
"""

from agentic_ray.tables.datasets import from_ray
from agentic_ray.tables.manifests import Written, WrittenFile
from agentic_ray.tables.reading import (
    col,
    from_arrow,
    read_csv,
    read_ipc,
    read_json,
    read_orc,
    read_parquet,
    read_text,
)
from agentic_ray.tables.running import Report
from agentic_ray.tables.scans import Skipped
from agentic_ray.tables.table import Grouped, Table

__all__ = [
    "Grouped",
    "Report",
    "Skipped",
    "Table",
    "Written",
    "WrittenFile",
    "col",
    "from_arrow",
    "from_ray",
    "read_csv",
    "read_ipc",
    "read_json",
    "read_orc",
    "read_parquet",
    "read_text",
]
