"""Splits a table of the MAGIC set into five folds: equal rows share a fold, classes are stratified.

    python3 bench/folds.py magic04-dev.data FOLDER

Writes FOLDER/train-K.data and FOLDER/test-K.data for K in 0…4. The fold of a row follows from
the rank of its SHA-256 among the distinct rows of its class, so from the content alone.
"""

import hashlib
import sys
from pathlib import Path

FOLDS = 5


def main(table, folder):
    rows = Path(table).read_text().splitlines()
    fold = {}
    for name in ("g", "h"):
        distinct = sorted(
            {row for row in rows if row.endswith("," + name)},
            key=lambda row: hashlib.sha256(row.encode()).hexdigest(),
        )
        fold.update({row: i % FOLDS for i, row in enumerate(distinct)})
    Path(folder).mkdir(parents=True, exist_ok=True)
    for k in range(FOLDS):
        for part, chosen in (("test", lambda f: f == k), ("train", lambda f: f != k)):
            kept = [row for row in rows if chosen(fold[row])]
            Path(folder, f"{part}-{k}.data").write_text("\n".join(kept) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
