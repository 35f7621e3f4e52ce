"""Rows of CSV text begin where a parser that walks through every byte says."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentic_ray.sources import _rows


def reference_starts(data: bytes, delimiter: int) -> set[int]:
    """Starts of rows by a state machine over single bytes."""
    starts = set()
    quoted, at_field_start = False, True
    position = 0
    while position < len(data):
        byte = data[position]
        if quoted:
            if byte == ord('"'):
                if data[position + 1 : position + 2] == b'"':
                    position += 1
                else:
                    quoted = False
            at_field_start = False
        elif byte == ord('"') and at_field_start:
            quoted = True
        else:
            at_field_start = byte in (delimiter, ord("\n"), ord("\r"))
            if byte == ord("\n"):
                starts.add(position + 1)
        position += 1
    return starts - {len(data)}


pieces = st.lists(
    st.sampled_from(['"', '""', ",", "\n", "\r\n", "a", 'b"c', '"x\ny"', '"p""q"', ";"]),
    max_size=40,
)


@settings(max_examples=500, deadline=None)
@given(pieces=pieces, step=st.integers(1, 30), delimiter=st.sampled_from([",", ";"]))
@example(pieces=['"', "a", "\n", '"', "\n", "b"], step=1, delimiter=",")
@example(pieces=['b"c', "\n", '"x\ny"', "\n", "a"], step=2, delimiter=",")
def test_starts_agree_with_the_state_machine(pieces: list[str], step: int, delimiter: str) -> None:
    data = "".join(pieces).encode()
    true_starts = sorted(reference_starts(data, ord(delimiter)))
    expected: list[int] = []
    for target in range(step, len(data), step):
        start = next((start for start in true_starts if start >= target), None)
        if start is not None and start not in expected:
            expected.append(start)
    assert _rows.row_starts(data, 0, step, delimiter) == expected
    assert list(_rows.scanned_row_starts(data, 0, step, delimiter)) == expected


def test_well_formed_quotes_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b'"a\n""b""",1\n"c",2\n' * 1000
    scanned = list(_rows.scanned_row_starts(data, 0, 100, ","))
    monkeypatch.delattr(_rows, "scanned_row_starts")
    assert _rows.row_starts(data, 0, 100, ",") == scanned
