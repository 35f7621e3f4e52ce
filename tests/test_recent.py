"""Bounded tables forget what was used longest ago."""

from __future__ import annotations

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from agentic_ray.recent import Recent


@given(
    st.integers(1, 5),
    st.integers(0, 12),
    st.lists(st.tuples(st.sampled_from("rwap"), st.integers(0, 8), st.integers(0, 6))),
)
def test_a_table_is_what_a_list_in_order_of_use_says(
    most: int, most_bytes: int, steps: list[tuple[str, int, int]]
) -> None:
    table: Recent[int, int] = Recent(most, most_bytes, lambda value: value)
    wanted: list[tuple[int, int]] = []  # the one used last is the last
    for step, key, value in steps:
        known = dict(wanted)
        if step == "r":
            assert table.get(key, -1) == known.get(key, -1)
        elif step == "w":
            table[key] = value
            known[key] = value
        elif step == "a":
            assert table.add(key, value) == (key not in known)
            if key in known:
                continue
            known[key] = value
        else:
            assert table.pop(key) == known.pop(key, None)
        order = [old for old, _ in wanted if old in known and old != key] + [key] * (key in known)
        while len(order) > 1 and (len(order) > most or sum(known[k] for k in order) > most_bytes):
            del order[0]
        wanted = [(k, known[k]) for k in order]
        assert table.values() == [v for _, v in wanted]
        assert len(table) == len(wanted)


def test_a_value_is_made_once_by_many_threads() -> None:
    table: Recent[str, object] = Recent(4)
    made: list[object] = []

    def make() -> object:
        made.append(object())
        return made[-1]

    threads = [threading.Thread(target=table.get_or_make, args=("x", make)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert table.values() == made
    assert len(made) == 1


def test_a_child_process_can_use_a_table_whose_lock_another_thread_held() -> None:
    table: Recent[str, int] = Recent(4)
    inside, leave = threading.Event(), threading.Event()

    def slow() -> int:
        inside.set()
        leave.wait(30)
        return 1

    thread = threading.Thread(target=table.get_or_make, args=("x", slow))
    thread.start()
    inside.wait(30)
    child = os.fork()
    if not child:
        table["y"] = 2
        os._exit(0 if table.get("y") == 2 else 1)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
