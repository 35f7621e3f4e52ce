"""Watch sensors: means of each minute from a file that grows, and the sensors that drift.

    python examples/sensor_stream.py --minutes 2000
    python examples/sensor_stream.py --file readings.csv --follow

Readings are generated and written to a file, as a gateway would; some come out of order, and a few
sensors drift. The answer is checked: the windows are those that one pass over the whole table of
readings gives, and the alarms are the sensors that drift.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

import agentic_ray as ar

SENSORS = 200
SECONDS_BETWEEN = 5
DELAY = 10.0
DRIFT_A_MINUTE = 0.5
ALARM = 3.0


def drifting(seed: int) -> Any:
    """The numbers of the sensors that drift."""
    return np.sort(np.random.default_rng([seed, 0]).choice(SENSORS, 4, replace=False))


def generate(file: Path, minutes: int, seed: int) -> None:
    """Write the readings in the order in which they come, minute by minute."""
    bad = np.isin(np.arange(SENSORS), drifting(seed))
    with open(file, "wb") as out:
        for minute in range(minutes):
            rng = np.random.default_rng([seed, 1, minute])
            sensor = np.repeat(np.arange(SENSORS), 60 // SECONDS_BETWEEN)
            time = 60 * minute + np.tile(np.arange(0, 60, SECONDS_BETWEEN), SENSORS)
            value = 20 + sensor % 7 + rng.normal(0, 0.3, len(sensor))
            value += bad[sensor] * DRIFT_A_MINUTE * time / 60
            order = np.argsort(time + rng.uniform(0, DELAY, len(time)), kind="stable")
            table = pa.table({"time": time, "sensor": sensor, "value": value.round(4)})
            options = pacsv.WriteOptions(include_header=minute == 0)
            pacsv.write_csv(table.take(pa.array(order)), out, options)


def minutes_of(stream: Any) -> Any:
    """Describe the windows."""
    keyed = stream.key_by("sensor").window(ar.stream.tumbling(60))
    return keyed.aggregate(
        mean=("value", "mean"), low=("value", "min"), high=("value", "max"), readings="size"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=20, help="a minute is 2,400 readings")
    parser.add_argument("--file", type=Path, help="file of readings of your own")
    parser.add_argument("--follow", action="store_true", help="wait for more lines of it")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    first: dict[int, float] = {}
    alarms: dict[int, float] = {}

    def watch(windows: pa.Table, epoch: int) -> None:
        for row in windows.to_pylist():
            sensor, mean = row["sensor"], row["mean"]
            if abs(mean - first.setdefault(sensor, mean)) > ALARM and sensor not in alarms:
                alarms[sensor] = row["window_end"]
                print(f"  sensor {sensor} is off by {mean - first[sensor]:+.2f} "
                      f"at {row['window_end']:.0f} s", flush=True)  # fmt: skip

    with tempfile.TemporaryDirectory() as scratch:
        file = options.file or Path(scratch) / "readings.csv"
        if options.file is None:
            generate(file, options.minutes, options.seed)
        source = ar.stream.file(file, follow=options.follow)
        windows = minutes_of(ar.stream(source, max_delay=DELAY))
        report = windows.sink(watch).run()
        print(f"{report.rows:,} readings, {report.windows:,} windows, {report.late} late")
        if options.file is not None:
            return

        # The same from the whole file, as a table: a minute is a column like any other.
        def with_minute(part: pa.Table) -> pa.Table:
            return part.append_column("minute", pa.array(part["time"].to_numpy() // 60 * 60))

        table = ar.tables.read_csv(file).map(with_minute)
        grouped = table.group_by("minute", "sensor")
        wanted = grouped.agg(
            mean=("value", "mean"), low=("value", "min"), high=("value", "max"), readings="size"
        ).sort_by([("minute", "ascending"), ("sensor", "ascending")])
        found = windows.to_arrow().sort_by([("window_start", "ascending"), ("sensor", "ascending")])
    same = found.num_rows == wanted.num_rows == report.windows and all(
        np.allclose(found[name], wanted[name]) for name in ("mean", "low", "high", "readings")
    )
    if not same or report.late:
        raise SystemExit("the windows are not those of the whole table")
    if options.minutes * DRIFT_A_MINUTE > 2 * ALARM and sorted(alarms) != list(
        drifting(options.seed)
    ):
        raise SystemExit(f"sensors {sorted(alarms)} gave alarm, not {list(drifting(options.seed))}")
    print(f"checked: the windows of the whole table; {len(alarms)} sensors that drift")


if __name__ == "__main__":
    main()
