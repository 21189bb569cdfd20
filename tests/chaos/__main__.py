"""Tries every fault on every phase and on every kind of file, and writes what survived: `make chaos`."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from secateur.runs import read_json, write_json
from secateur.runs.text import table
from tests.chaos.bench import PHASES, SHORT, STREAMED, WORKERS, Bench, opened
from tests.chaos.faults import CHAIN, FAULTS, NATIVE, OF_WORKERS
from tests.chaos.hostile import attack
from tests.chaos.kinds import KINDS

RESULT = "reliability.json"
HOSTILE = "hostile files"


def main() -> int:
    """1 where something did not survive."""
    from benchmarks.common import RESULTS

    words = options()
    os.nice(words.nice)
    out = words.out or RESULTS / RESULT
    rows = {(row["fault"], row["where"]): row for row in read_json(out)["rows"]} if out.exists() else {}
    new: dict[tuple[str, str], dict] = {}
    print("before the first fault of a phase it runs undisturbed: minutes without a line", flush=True)
    with opened(words.seed) as bench:
        for fault, where, found, seconds in every(bench, words):
            row = new.setdefault((fault, where), row_of(fault, where, words.seed))
            add(row, found, seconds)
            print(f"{fault} · {where}: {row['survived']} of {row['tries']}", *row["broken"], flush=True)
            write_json(out, {"rows": [*(rows | new).values()]})
    cells = [(row["fault"], row["where"], str(row["tries"]), str(row["survived"])) for row in new.values()]
    print(table(("fault", "where", "tries", "survived"), cells))
    return int(any(row["broken"] for row in new.values()))


def options() -> argparse.Namespace:
    """Of the command line."""
    phases, faults = [*PHASES, STREAMED, SHORT, WORKERS], [HOSTILE, *FAULTS]
    style = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__, formatter_class=style)
    counted = "tries of each kind of kill on each phase; one that ends before its kill is not counted"
    parser.add_argument("--kills", type=int, default=100, help=counted)
    parser.add_argument("--tries", type=int, default=10, help="of every other fault on each phase")
    parser.add_argument("--mutations", type=int, default=10_000, help="of every kind of file")
    parser.add_argument("--keep", action="store_true", help="keep mutations that reach new lines: corpus/")
    parser.add_argument(
        "--faults", nargs="*", help=f"only those with one of these words in them: {'; '.join(faults)}"
    )
    parser.add_argument("--phases", nargs="*", default=phases, choices=phases, help="only these")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin nothing later than this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nice", type=int, default=0, help="how far to stand back behind other programs")
    parser.add_argument("--out", type=Path, help=f"file to write (default: benchmarks/results/{RESULT})")
    words = parser.parse_args()
    if strange := [word for word in words.faults or () if not any(word in fault for fault in faults)]:
        parser.error(f"no fault has these words in it. Received: --faults {strange[0]!r}")
    return words


def every(bench: Bench, words: argparse.Namespace) -> Iterator[tuple[str, str, list[str], float]]:
    """(fault, where, what broke in each try, seconds): files first, then all phases a few tries at a time."""
    begun = time.monotonic()

    def tried(fault: str, where: str, act: Callable[[], Iterable[str]]) -> Iterator:
        start = time.monotonic()
        if start - begun < 60 * words.minutes:
            yield fault, where, list(act()), time.monotonic() - start

    for kind in KINDS if wanted(words, HOSTILE) else ():
        yield from tried(HOSTILE, kind, partial(attack, bench, kind, words.mutations, words.keep))
    for turn in range(max(words.kills, words.tries)):
        for fault, act in FAULTS.items():
            few, most = (CHAIN, words.kills) if fault.startswith("kill") else (1, words.tries)
            tries = min(few, most - turn * few) if wanted(words, fault) else 0
            phases = [name for name in words.phases if (name == WORKERS) == (fault == OF_WORKERS)]
            for name in phases if tries > 0 else ():
                yield from tried(fault, name, lambda a=act, n=name, t=tries: a(bench, bench.phase(n), t))


def wanted(words: argparse.Namespace, name: str) -> bool:
    """Whether --faults does not leave it out."""
    return not words.faults or any(word in name for word in words.faults)


def row_of(fault: str, where: str, seed: int) -> dict:
    """A row without a try; `native` are tries that native code ended without a line of ours."""
    from benchmarks.common import command, today
    from secateur.recipes.engine.report import machine

    return {
        "fault": fault,
        "where": where,
        "command": command(),
        "date": today(),
        "machine": machine(),
        "seed": seed,
        "tries": 0,
        "survived": 0,
        "native": 0,
        "seconds": 0.0,
        "broken": [],
    }


def add(row: dict, found: list[str], seconds: float) -> None:
    """Counts tries into a row, and keeps what broke."""
    row["tries"] += len(found)
    row["survived"] += found.count("")
    row["native"] += found.count(NATIVE)
    row["seconds"] = round(row["seconds"] + seconds, 1)
    row["broken"] += [end for end in found if end not in ("", NATIVE)]


if __name__ == "__main__":
    raise SystemExit(main())
