"""Memory over long runs: thousands of candidates and of epochs leave nothing behind, and retrace nothing."""

import gc
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from secateur import dataloader
from secateur.distillation import labels_only
from secateur.pruning.search.ekg import Searcher
from secateur.pruning.search.settings import SearchSettings
from secateur.recipes.training.loop import TrainingSpec, fit
from tests.helpers import toys
from tests.recipes.test_training_loop import constant, network, run_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
CANDIDATES = int(os.environ.get("SECATEUR_CANDIDATES", 2_000))
EPOCHS = int(os.environ.get("SECATEUR_EPOCHS", 10_000))
WARM = 200  # candidates, or epochs, behind which all that is kept once is there
MOST = 50.0


def megabytes() -> float:
    """What this process holds in memory."""
    gc.collect()
    return int(re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def traces() -> set[int]:
    """How often each function of TensorFlow that has been called was traced."""
    kind = type(tf.function(lambda: None))
    counts = {f.experimental_get_tracing_count() for f in gc.get_objects() if isinstance(f, kind)}
    return counts - {0}


def test_two_thousand_candidates_of_a_search(capsys):
    images, labels = toys.images(24, 8), np.arange(24) % 10
    searcher = Searcher(toys.small_resnet(), images, labels, SearchSettings(target=0.3, batch_size=12))
    seen, before = 0, 0.0
    while seen < CANDIDATES + WARM:
        for state in searcher.run():
            seen += state.history[-1].candidates
            before = before or (megabytes() if seen >= WARM else 0.0)
    grown = megabytes() - before
    with capsys.disabled():
        print(f"\n{seen} candidates, {grown:.1f} MB more behind the first {WARM}")
    assert grown < MOST
    assert traces() == {1}


def test_ten_thousand_short_epochs(tmp_path, capsys):
    digits, marks = dataloader.load("DIGITS"), {}
    few = digits.warmup.take(np.arange(100))

    def mark(done: int) -> None:
        if done in (WARM, EPOCHS):
            marks[done] = megabytes()

    with run_in(tmp_path, digits) as context:
        spec = TrainingSpec(
            name="phase",
            images=few,
            epochs=EPOCHS,
            learning_rates=lambda steps: constant(steps) / 100,
            objective=labels_only,
            preprocess=context.plain,
            weight_decay=5e-4,
            seed=1,
            batch_size=100,
            remedy="Take smaller steps",
            after_epoch=mark,
        )
        fit(context, network(), spec)
    grown = marks[EPOCHS] - marks[WARM]
    with capsys.disabled():
        print(f"\n{EPOCHS} epochs, {grown:.1f} MB more behind the first {WARM}")
    assert grown < MOST
    assert traces() == {1}
