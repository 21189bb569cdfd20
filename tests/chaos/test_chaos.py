"""A part of `make chaos`: a run killed in all its phases, a small disk, little memory, bad files."""

import os
import random

import pytest

from secateur.pruning import Plan
from secateur.runs import read_json
from tests.chaos import hostile
from tests.chaos.bench import SHORT, Bench, broken, unreadable
from tests.chaos.faults import FAULTS, NATIVE
from tests.chaos.hostile import attack
from tests.chaos.kinds import KINDS


@pytest.fixture(scope="module")
def bench(programs, tmp_path_factory):
    root = tmp_path_factory.mktemp("chaos")
    return Bench(root, programs, random.Random(18))


def test_a_run_killed_while_it_writes_ends_in_the_same_bits(bench):
    """At every few changes of a file, at once or half a millisecond after they began."""
    whole = bench.phase(SHORT)
    work, phases = bench.fresh(whole), []
    while True:
        kill = [bench.rng.randint(1, 25), bench.rng.choice([0, 0.0005])]
        if (done := bench.run(whole.words, work, kill=kill)).code == 0:
            break
        assert done.code == -9, done.err
        assert not unreadable(work)
        manifest = work / "run" / "manifest.json"
        phases.append(len(read_json(manifest)["steps"]) if manifest.exists() else 0)
    assert len({*phases}) >= 2, phases
    assert not broken(whole, work, done)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_disk_that_fills_up_loses_nothing(bench):
    assert list(FAULTS["a full disk"](bench, bench.phase(SHORT), 1)) == [""]


def test_too_little_memory_is_one_line(bench):
    """Native code may end the process before: then nothing is lost either."""
    (end,) = FAULTS["too little memory"](bench, bench.phase(SHORT), 1)
    assert end in ("", NATIVE)


def test_new_lines_guide_and_what_reaches_them_is_kept(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(hostile, "CORPUS", tmp_path / "corpus")
    assert not any(attack(bench, "plan", 300, keep=True))
    kept = hostile.corpus("plan")
    assert len(kept) >= 3 and len({*kept}) == len(kept)
    lines = hostile.Lines()
    with lines:
        Plan.full([])
    assert lines.new
    with lines:
        Plan.full([])
    assert not lines.new


@pytest.mark.parametrize("kind", KINDS)
def test_bad_files_are_refused_and_nothing_else_happens(kind, bench):
    ends = list(attack(bench, kind, 300))
    assert len(ends) >= 15 and not any(ends), [end for end in ends if end]
