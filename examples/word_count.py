"""Count the words of text files, by lines.

    python examples/word_count.py README.md docs/ --top 10
    ray job submit --working-dir . -- python examples/word_count.py README.md

Each line is a logical task of its own; the files are read in byte ranges by the workers, so on a
cluster they must be at the same path on every node.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter

import agentic_ray as ar

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")


def words_of(line: str) -> Counter[str]:
    return Counter(word.lower() for word in WORD.findall(line))


def merge(left: Counter[str], right: Counter[str]) -> Counter[str]:
    # A new object: the operands of a reduction may still be needed after a fault.
    small, large = sorted((left, right), key=len)
    merged = large.copy()
    merged.update(small)
    return merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", help="text files, directories or patterns")
    parser.add_argument("--top", type=int, default=20, help="how many words to show")
    parser.add_argument("--encoding", default="utf-8")
    options = parser.parse_args()

    lines = ar.sources.text_lines(options.paths, encoding=options.encoding, errors="replace")
    counts = ar.map_reduce(words_of, lines, merge, initial=Counter())
    print(f"{counts.total():,} words, {len(counts):,} of them different")
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: options.top]:
        print(f"{count:8,}  {word}")


if __name__ == "__main__":
    main()
