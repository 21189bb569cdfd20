"""What every benchmark does: take turns, keep all timings, print a table of ratios, write a small JSON."""

from __future__ import annotations

import datetime
import gzip
import lzma
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from secateur.dataloader.registry import facts_of
from secateur.runs import UsageError, warn, write_json
from secateur.runs.start import start_tensorflow
from secateur.runs.text import table

_CIFAR10 = facts_of("CIFAR10", "rgb")
MEAN, STD = _CIFAR10.mean, _CIFAR10.std

RESULTS = Path(os.environ.get("SECATEUR_RESULTS", Path(__file__).parent / "results"))

QUIET = 0.1  # of all cores, in use by others

Seconds = dict[str, list[float]]  # competitor → one figure for each turn


def take_turns(competitors: Mapping[str, Callable[[], float]], turns: int) -> Seconds:
    """Calls A, B, C, A, B, C …: what else the machine does hits all of them. Each call returns seconds."""
    found: Seconds = {name: [] for name in competitors}
    for _ in range(turns):
        for name, call in competitors.items():
            found[name].append(call())
    return found


def timed(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def summary(seconds: Seconds, reference: str) -> list[dict]:
    """One row per competitor: median, minimum and maximum in seconds, and its ratio to the `reference`.

    The ratio is the median of the ratios turn by turn, so that a slow minute of the machine cancels out.
    """
    rows = []
    for name, values in seconds.items():
        ratios = [value / other for value, other in zip(values, seconds[reference], strict=True)]
        rows.append(
            {
                "name": name,
                "median": statistics.median(values),
                "min": min(values),
                "max": max(values),
                "ratio": statistics.median(ratios),
                "turns": len(values),
            }
        )
    return rows


def print_summary(title: str, rows: Sequence[Mapping], reference: str, unit: str = "ms") -> None:
    """The rows of `summary` as a table, in milliseconds or seconds."""
    scale = 1e3 if unit == "ms" else 1.0
    columns = ("", f"median {unit}", "min–max", f"ratio to {reference}", "speed-up")
    cells = [
        (
            row["name"],
            f"{scale * row['median']:.4g}",
            f"{scale * row['min']:.4g}–{scale * row['max']:.4g}",
            f"{row['ratio']:.3f}",
            f"{1 / row['ratio']:.2f}",
        )
        for row in rows
    ]
    print_table(title, columns, cells)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table under its title."""
    print(f"\n{title}\n{table(columns, rows)}")


def save(name: str, results: Mapping) -> Path:
    """Writes benchmarks/results/<name>.json with command, commit, date and machine; prints where."""
    start_tensorflow()
    from secateur.recipes.engine.report import machine as machine_facts

    about = {"command": command(), "commit": commit(), "date": today()}
    about |= {"machine": machine_facts(), "busy": busy()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    write_json(path, {**about, **results})
    if about["busy"] > QUIET:
        warn(f"other processes use {about['busy']:.0%} of this machine: a trial, no result")
    facts = about["machine"]
    machine = f"{facts['processor']}, {facts['cores']} cores, TensorFlow {facts['tensorflow']}"
    print(f"{machine}, {about['date']} → benchmarks/results/{path.name}")
    return path


def named_paths(flag: str, pairs: Sequence[str]) -> dict[str, Path]:
    """["NAME=PATH", …] → {name: path}; a name may hold "=". Raises `UsageError` for anything else."""
    if wrong := next((pair for pair in pairs if "=" not in pair), None):
        raise UsageError(f"Give each as NAME=PATH. Received: {flag}={wrong!r}")
    return {name: Path(path) for name, _, path in (pair.rpartition("=") for pair in pairs)}


def busy() -> float:
    """Share of all cores, in [0, 1], in use while this process sleeps; 0 where nothing tells."""

    def jiffies() -> tuple[int, int]:
        user, nice, system, idle, waiting, *_ = map(int, Path("/proc/stat").read_text().split()[1:9])
        return user + nice + system, idle + waiting

    try:
        used, idle = jiffies()
        time.sleep(1.0)
        used, idle = (after - before for after, before in zip(jiffies(), (used, idle), strict=True))
    except OSError:
        return 0.0
    return used / max(used + idle, 1)


def today() -> str:
    """Date and time, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def commit() -> str:
    """The commit of this checkout, with "-dirty" behind it where tracked files differ; "" without git."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*"]
    words += ["--abbrev=40", "--dirty"]
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def command() -> str:
    """The command line of this process, see `portable`."""
    module = getattr(sys.modules["__main__"].__spec__, "name", "").removesuffix(".__main__")
    ours = module.startswith(("benchmarks.", "tests."))
    name = ["-m", module] if ours else [Path(sys.argv[0]).name]
    return portable(["python", *name, *sys.argv[1:]])


def portable(words: Sequence[str]) -> str:
    """A command line whose paths are cut to their last part: folders mean nothing on another machine."""

    def cut(word: str) -> str:
        name, equals, path = word.rpartition("=")
        return name + equals + (Path(path).name if "/" in path else path)

    return shlex.join(map(cut, words))


def packed(data: bytes) -> dict[str, int]:
    """Bytes after gzip and xz at their strongest."""
    return {"gzip -9": len(gzip.compress(data, 9)), "xz -9": len(lzma.compress(data, preset=9))}
