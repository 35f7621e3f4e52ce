"""Count the k-mers of DNA reads in FASTA or plain text files, as genome assemblers do.

    python examples/kmer_counts.py --megabytes 1000 --k 11
    python examples/kmer_counts.py reads.fasta --k 8

Without a file, reads of a random genome are generated, with a motif planted in known places; the
answer is checked against what was planted. A k-mer with a letter other than A, C, G, T is left out,
and so are headers, lines that begin with ">".
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import agentic_ray as ar

READ = 100
MOTIF = "ACGTTGCATGCA"
LETTERS = np.frombuffer(b"ACGT", np.uint8)


def generate(file: Path, megabytes: float, seed: int) -> int:
    """Write reads, every tenth with the motif; return how many have it."""
    rng = np.random.default_rng(seed)
    count = max(10, int(megabytes * 1e6 / (READ + 1)))
    planted = 0
    with open(file, "wb") as out:
        for first in range(0, count, 100_000):
            rows = min(100_000, count - first)
            reads = np.full((rows, READ + 1), ord("\n"), np.uint8)
            reads[:, :READ] = LETTERS[rng.integers(0, 4, (rows, READ))]
            reads[::10, 40 : 40 + len(MOTIF)] = np.frombuffer(MOTIF.encode(), np.uint8)
            planted += len(reads[::10])
            out.write(reads.tobytes())
    return planted


def kmers_of(k: int) -> Any:
    """The function that counts the k-mers of a part of the lines, as numbers in base 4."""

    def kmers(part: pa.Table) -> pa.Table:
        lines = part["line"].filter(pc.invert(pc.starts_with(part["line"], ">")))
        text = "\n".join(lines.to_pylist()).upper().encode()
        codes = np.full(256, 4, np.uint8)
        codes[LETTERS] = np.arange(4)
        letters = codes[np.frombuffer(text, np.uint8)]
        places = max(len(letters) - k + 1, 0)
        numbers = np.zeros(places, np.int64)
        good = np.ones(places, bool)
        for at in range(k):
            letter = letters[at : at + places]
            numbers = numbers * 4 + letter
            good &= letter < 4
        values, counts = np.unique(numbers[good], return_counts=True)
        return pa.table({"kmer": values, "count": counts.astype(np.int64)})

    return kmers


def text_of(number: int, k: int) -> str:
    return "".join("ACGT"[number >> 2 * at & 3] for at in reversed(range(k)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="files to count; by default generated")
    parser.add_argument("--k", type=int, default=8, help="letters of a k-mer, at most 30")
    parser.add_argument("--megabytes", type=float, default=5, help="size of the generated reads")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    k = options.k
    if not 1 <= k <= 30:
        parser.error("--k must be from 1 to 30")
    with tempfile.TemporaryDirectory() as scratch:
        planted = 0
        files = options.files
        if not files:
            files = [Path(scratch) / "reads.txt"]
            planted = generate(files[0], options.megabytes, options.seed)
        reads = ar.tables.read_text(files).map(kmers_of(k))
        counts = reads.group_by("kmer").agg(count=("count", "sum"))
    order = pc.sort_indices(counts, sort_keys=[("count", "descending"), ("kmer", "ascending")])
    most = counts.take(order[: options.top]).to_pylist()
    total = pc.sum(counts["count"]).as_py() or 0
    print(f"{total:,} k-mers of {k} letters, {counts.num_rows:,} of them different")
    for row in most:
        print(f"{row['count']:12,}  {text_of(row['kmer'], k)}")
    if planted and k <= len(MOTIF):
        number = int("".join(str("ACGT".index(letter)) for letter in MOTIF[:k]), 4)
        found = counts.filter(pc.equal(counts["kmer"], number))["count"].to_pylist()
        good = bool(found) and found[0] >= planted and total % (READ - k + 1) == 0
        if not good:
            raise SystemExit(f"the motif was planted {planted} times, and counted {found}")
        print(f"checked: {MOTIF[:k]} was planted {planted:,} times and counted {found[0]:,} times")


if __name__ == "__main__":
    main()
