"""What faults are tried on: a small run in its phases, and what must hold behind a fault."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from secateur.runs import load_snapshot, read_jsonl, save_snapshot, sha256
from secateur.runs.files import TEMP_PREFIX
from tests.helpers import workers
from tests.helpers.forked import Done, Programs

CHILD = Path(__file__).with_name("child.py")
STEPS = {
    "baseline": 'kind = "dense"\nepochs = 2\nlearning_rate = 0.05\noptimizer = "momentum"',
    "warm_up": 'kind = "train"\nimages = "warmup"\naugment = false\nepochs = 1\nshown = false',
    "search": 'kind = "search_ekg"\ntarget = 0.9\nstep = 0.2',
    "bank": 'kind = "bank"\ncount = 2',
    "fine_tune": 'kind = "train"\nepochs = 2\nteacher = "bank"',
    "landscape": 'kind = "landscape"\ncount = 32\neigen_steps = 2\nnoises = 1\nside = 3',
    "share": 'kind = "share"\nbits = 4',
    "encode": 'kind = "encode"',
    "int8": 'kind = "int8"\nsamples = 32',
}
PHASES = tuple(STEPS)
STREAMED, SHORT, WORKERS = "streamed", "short", "two workers"
OF_SHORT = ("baseline", "share", "encode")
"""Steps of a whole run that takes seconds, for its baseline is given."""
OF_WORKERS = ("baseline", "warm_up", "search", "bank", "fine_tune")
"""Steps of a run of two workers, from the same baseline: those in which they share the work."""
OPTIONS = "--arch ResNet-8 --train_images 128 --batch_size 32 --time_seconds 0.01 --save_minutes 1e-6".split()
CHANGING = ("report.json", "report.html", "manifest.json", "config.json", ".lock", "metrics.jsonl")
"""Files that have the time of day in them, or what may differ."""


@dataclass
class Phase:
    """A run folder in which all is done but this phase (or nothing: the whole run, streamed epochs).

    Attributes:
        words: of the command, behind the program.
        before: the folder when the phase begins.
        seconds, changes: of an undisturbed run from there to the end of the phase.
        after: name → digest of its files in the end.
    """

    name: str
    words: list[str]
    before: Path
    seconds: float = 0.0
    changes: int = 0
    after: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Runs programs under faults, in folders below `root`."""

    root: Path
    programs: Programs
    rng: random.Random
    phases: dict[str, Phase] = field(default_factory=dict)

    def run(self, words: list[str], cwd: Path, **fault: object) -> Done:
        """`train_cifar.py` with these words, to its end."""
        self.start(words, cwd, **fault)
        return self.programs.wait()

    def start(self, words: list[str], cwd: Path, **fault: object) -> int:
        """Starts it; the id of its process."""
        path = self.root / "fault.json"
        path.write_text(json.dumps({"report": False} | fault))
        return self.programs.start(CHILD, path, "train_cifar.py", *words, cwd=cwd)

    def together(self, words: list[str], cwd: Path) -> list[subprocess.Popen]:
        """Starts it as two workers, processes of their own."""
        return workers.start("train_cifar.py", *words, cwd=cwd)

    def phase(self, name: str) -> Phase:
        """A phase, measured once; where an undisturbed run leaves it the next one begins."""
        if name in self.phases:
            return self.phases[name]
        found = Phase(name, self.words(name), self.root / "phases" / name / "before")
        if name in PHASES[1:]:
            last = self.phase(PHASES[PHASES.index(name) - 1])
            shutil.copytree(last.before.with_name("after"), found.before)
        self.phases[name] = self._measured(found)
        return found

    def _measured(self, phase: Phase) -> Phase:
        phase.before.mkdir(parents=True, exist_ok=True)
        work, counter = self.fresh(phase), self.root / "changes"
        start = time.monotonic()
        if phase.name == WORKERS:
            done = first_failed(workers.ended(self.together(phase.words, work)))
        else:
            done = self.run(phase.words, work, changes=str(counter))
            phase.changes = int(counter.read_text())
        assert done.code == 0, done.err
        phase.seconds = time.monotonic() - start
        phase.after = digests(work / "run")
        shutil.copytree(work, phase.before.with_name("after"))
        return phase

    def words(self, name: str) -> list[str]:
        """The command that ends with this phase."""
        digits = ["--dataset", "DIGITS"]
        if name == STREAMED:
            given = [self._recipe(PHASES[:1]), "--data", str(self._images()), "--stream"]
        elif name in (SHORT, WORKERS):
            recipe = self._recipe(OF_SHORT if name == SHORT else OF_WORKERS)
            given = [recipe, *digits, "--trained_param", str(self._baseline())]
        else:
            given = [self._recipe(PHASES), *digits, "--until", name]
        return ["--recipe", *given, *OPTIONS, "--train_path", "run"]

    def fresh(self, phase: Phase) -> Path:
        """A copy of the folder in which the phase begins, to work in."""
        work = self.root / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(phase.before, work)
        return work

    def _recipe(self, names: Sequence[str]) -> str:
        path = self.root / f"{names[-1]}{len(names)}.toml"
        steps = "".join(f'[[steps]]\nname = "{name}"\n{STEPS[name]}\n' for name in names)
        path.write_text(f'[options]\npipeline = "ekg"\n{steps}')
        return str(path)

    def _baseline(self) -> Path:
        """A network with random weights."""
        from secateur import nets

        path = self.root / "given.pkl"
        if not path.exists():
            save_snapshot(path, nets.snapshot_of(nets.build("ResNet-8"), {"normalisation": "rgb"}))
        return path

    def _images(self) -> Path:
        """The digits as PNG files, a folder for each class."""
        import keras

        from secateur import dataloader

        folder = self.root / "images"
        if not folder.exists():
            few = dataloader.load("DIGITS").train.take(np.arange(200))
            for i, (image, label) in enumerate(zip(few.images, few.labels, strict=True)):
                (folder / str(label)).mkdir(parents=True, exist_ok=True)
                keras.utils.save_img(folder / str(label) / f"{i}.png", image, scale=False)
        return folder


@contextmanager
def opened(seed: int) -> Iterator[Bench]:
    """A bench in a temporary folder, which anybody may enter."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        root = Path(name)
        root.chmod(0o755)
        programs = Programs(root)
        try:
            yield Bench(root, programs, random.Random(seed))
        finally:
            programs.close()


# --- what must hold -----------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    """Name → digest of the files whose bits must be the same; rows of metrics without the time of day."""
    files = {path.name: _digest(path) for path in folder.iterdir() if path.is_file()}
    kept = {name: digest for name, digest in files.items() if name not in CHANGING}
    rows = [{k: v for k, v in row.items() if k != "time"} for row in read_jsonl(folder / "metrics.jsonl")]
    return kept | {"metrics.jsonl": json.dumps(rows)}


def _digest(path: Path) -> str:
    """Of a Keras file that of its parts: the archive has the time of day in it, and so has its metadata."""
    if path.suffix != ".keras":
        return sha256(path)
    with zipfile.ZipFile(path) as archive:
        return str(
            {part.filename: part.CRC for part in archive.infolist() if "metadata" not in part.filename}
        )


def unreadable(folder: Path) -> list[str]:
    """Files of a run folder that cannot be read, temporary ones left out."""
    return [
        f"{path.name}: {error}"
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(TEMP_PREFIX) and (error := _error(path))
    ]


def _error(path: Path) -> str:
    read = {
        ".pkl": load_snapshot,
        ".json": lambda file: json.loads(file.read_text()),
        ".npy": lambda file: np.load(file, mmap_mode="r"),
        ".keras": lambda file: zipfile.ZipFile(file).testzip(),
    }
    try:
        read.get(path.suffix, lambda file: None)(path)
    except Exception as error:  # whatever it is, the file cannot be read
        return repr(error)[:200]
    return ""


def leftovers(folder: Path) -> list[str]:
    """Temporary files."""
    return [str(path) for path in folder.rglob(f"{TEMP_PREFIX}*")]


def lines(done: Done) -> list[str]:
    """What stderr says beside progress and the warning that there is no GPU."""
    found = [line for line in done.err.replace("\r", "\n").split("\n") if line.strip() and "%|" not in line]
    return [line for line in found if not line.startswith("warning:")]


def first_failed(ends: Sequence[Done]) -> Done:
    """The end of the first of several workers that failed; where none did, of the first."""
    return next((done for done in ends if done.code), ends[0])


def broken(phase: Phase, work: Path, done: Done) -> str:
    """What is wrong when the same command has gone on to its end; "" if nothing is."""
    if done.code:
        return f"the same command ends with {done.code}: {done.err[-300:]}"
    if left := leftovers(work):
        return f"stays: {left}"
    found = digests(work / "run")
    wrong = sorted(name for name in {*found, *phase.after} if found.get(name) != phase.after.get(name))
    return f"other bits: {', '.join(wrong)}" if wrong else ""
