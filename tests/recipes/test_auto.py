"""A budget of time: schedules follow the clock, trials are made once, searches stop, a whole run fits."""

import contextlib
import signal
import time
from collections.abc import Iterator
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from secateur import dataloader
from secateur.distillation import labels_only
from secateur.exports.timing import Setup
from secateur.pruning import complexity, make_plan
from secateur.recipes.engine.clock import Clock
from secateur.recipes.engine.command import choose, options_of
from secateur.recipes.engine.compress import compress
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.program import program_of
from secateur.recipes.steps.trials import Pace, TooLong, Trials
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.recipes.training.schedules import one_cycle
from secateur.runs import MetricsLog, RunFolder, UsageError, read_json
from tests.helpers.devices import Device

pytestmark = pytest.mark.runs
SIDE, CLASSES = 16, 3
clock_of = Clock.of


class FakeTime:
    """Seconds that pass only when somebody says so."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class CountedTime:
    """Every look at the clock takes a second; it may be the last one."""

    def __init__(self, looks: float = np.inf) -> None:
        self.start, self.looks, self.last = time.monotonic(), 0, looks

    def __call__(self) -> float:
        self.looks += 1
        if self.looks > self.last:
            raise KeyboardInterrupt
        return self.start + self.looks

    def clock(self, options: RunOptions, folder: RunFolder) -> Clock:
        return Clock(60 * options.minutes, self.start, clock_of(options, folder).before, folder, self)


def network() -> keras.Model:
    layers = keras.layers
    keras.utils.set_random_seed(3)
    x = inputs = keras.Input((SIDE, SIDE, 3))
    x = layers.Rescaling(1 / 127, -1)(x)
    for width in (8, 12, 8):
        x = layers.Conv2D(width, 3, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.8)(x))
    return keras.Model(inputs, layers.Dense(CLASSES, name="logits")(layers.GlobalMaxPooling2D()(x)))


def coloured(count: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """Noise that is reddish, greenish or bluish."""
    rng, labels = np.random.default_rng(0), np.arange(count) % CLASSES
    images = rng.integers(0, 200, (count, SIDE, SIDE, 3))
    images[np.arange(count), :, :, labels] += 40
    return images.astype(np.uint8), labels.astype(np.int32)


@pytest.fixture(scope="module")
def splits() -> dataloader.Splits:
    images, labels = coloured()
    facts = dataloader.Facts("coloured", CLASSES, (SIDE, SIDE, 3), (0.0,), (1.0,))
    every = dataloader.Images(images, labels, np.arange(len(labels)))
    return dataloader.given_splits(every, None, None, facts)


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = network()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss)
    model.fit(*coloured(), epochs=4, batch_size=20, verbose=0)
    return model


@contextlib.contextmanager
def run_in(folder, splits, **options) -> Iterator[RunContext]:
    config, strategy = RunOptions(**options), tf.distribute.get_strategy()
    with RunFolder(folder, {}) as opened, MetricsLog(opened, tensorboard=False) as log:
        yield RunContext(config, opened, log, splits, strategy)


def train(
    context: RunContext,
    now: FakeTime,
    seconds: float,
    step: float,
    dies_after: float = np.inf,
    told_after: float = np.inf,
) -> list:
    """Trains until so many seconds have passed, of which each step takes `step`; rows of the log."""

    def passing(ids: np.ndarray) -> dict:
        now.seconds += step
        if now() > told_after:
            signal.raise_signal(signal.SIGINT)
        if now() > dies_after:
            raise KeyboardInterrupt
        return {}

    spec = TrainingSpec(
        name="phase",
        images=context.splits.train,
        epochs=1,
        learning_rates=lambda steps: one_cycle(0.01, steps),
        objective=labels_only,
        preprocess=context.plain,
        weight_decay=0.0,
        seed=1,
        batch_size=20,
        remedy=str,
        extra=passing,
        until=now() + seconds,
        now=now,
    )
    fit(context, network(), spec)
    return context.log.rows()


def test_a_schedule_is_at_its_end_when_the_time_is(tmp_path, splits):
    now = FakeTime()
    with run_in(tmp_path, splits) as context:
        rows = train(context, now, 200.0, 1.0)
    assert 200 <= now() - 100 <= 202
    assert len(rows) >= 20 and rows[-1]["steps"] == pytest.approx(200, abs=2)
    assert rows[-1]["passes"] == pytest.approx(rows[-1]["steps"] / (len(splits.train) // 20))
    rates = [row["learning_rate"] for row in rows]
    expected = one_cycle(0.01, 10_000)[[min(int(50 * row["seconds"]), 9_999) for row in rows]]
    np.testing.assert_allclose(rates, expected, rtol=0.05, atol=2e-5)
    assert max(rates) > 0.0095 and rates[-1] == pytest.approx(0.01 * 1e-3, rel=0.01)


def test_a_killed_training_goes_on_where_its_schedule_was(tmp_path, splits):
    now = FakeTime()
    with run_in(tmp_path, splits) as context, pytest.raises(KeyboardInterrupt):
        train(context, now, 200.0, 1.0, dies_after=200.0)
    with run_in(tmp_path, splits) as context:
        done = context.folder.load_checkpoint("phase").facts
        assert 80 <= done["seconds"] <= 100
        now.seconds += 1000  # nobody worked
        rows = train(context, now, 200.0 - done["seconds"], 1.0)
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["steps"] == pytest.approx(200, abs=3)
    falling = [row["learning_rate"] for row in rows if row["seconds"] > 25]
    assert falling == sorted(falling, reverse=True) and falling[-1] < 2e-5


def test_checkpoints_are_as_many_as_save_minutes_wants_and_ctrl_c_has_one(tmp_path, splits):
    now = FakeTime()
    with run_in(tmp_path, splits, save_minutes=4 / 60) as context:
        with pytest.raises(KeyboardInterrupt):
            train(context, now, 200.0, 1.0, told_after=150.5)
        assert context.folder.load_checkpoint("phase").facts["seconds"] == now() - 101
        seconds = [row["seconds"] for row in context.log.rows()]
    assert max(np.diff(seconds)) <= 5 and len(seconds) >= 10


def test_a_step_longer_than_the_time_is_taken_once(tmp_path, splits):
    now = FakeTime()
    with run_in(tmp_path, splits) as context:
        assert [row["steps"] for row in train(context, now, 5.0, 60.0)] == [1]
    with run_in(tmp_path / "none", splits) as context:
        assert train(context, now, 0.0, 1.0) == []


def test_used_time_counts_in_the_next_attempt(tmp_path):
    options, now = RunOptions(recipe="auto", minutes=2.0), FakeTime()
    with RunFolder(tmp_path, {}) as folder:
        first = Clock(120.0, now(), 0.0, folder, now)
        now.seconds += 50
        first.note()
        assert first.left(reserve=20.0) == 50 and first.end(20.0) == now() + 50
        second = Clock.of(options, folder)
    assert second.seconds == 120 and second.before == 50
    assert second.used == pytest.approx(50 + time.monotonic() - options.given_at, abs=1)
    assert second.left(100.0) == 0


@pytest.mark.parametrize(("each", "fits"), [(1.0, True), (1.9, True), (2.1, False), (9.0, False)])
def test_a_search_stops_as_soon_as_it_would_be_too_long(each, fits):
    """Ten steps of a search in 20 seconds."""
    now, seen = FakeTime(), []

    def search() -> Iterator[int]:
        for i in range(1, 11):
            now.seconds += each
            seen.append(i)
            yield i

    pace = Pace(20.0, now)
    if fits:
        for i in search():
            pace(i / 10)
        assert seen[-1] == 10
    else:
        with pytest.raises(TooLong, match=f"about {10 * each:.3g} s of 20 s"):
            for i in search():
                pace(i / 10)
        assert len(seen) <= 3


def test_trials_are_made_once_and_the_best_is_chosen(tmp_path, splits, trained):
    made = []

    def plan(criterion: str, seconds: float):
        made.append(criterion)
        return make_plan(trained, criterion, keep_macs=0.5)

    with run_in(tmp_path, splits) as context:
        trials = Trials(context, "auto", trained)
        trials.add("l1", lambda seconds: plan("l1", seconds), 0.0)  # the first one is always made
        trials.add("late", lambda seconds: plan("l2", seconds), 0.0)
        trials.add("full", lambda seconds: make_plan(trained, "l1", keep=1.0), np.inf)
    with run_in(tmp_path, splits) as context:
        again = Trials(context, "auto", trained)
        again.add("l1", lambda seconds: plan("l1", seconds), np.inf)
        again.add("late", lambda seconds: plan("l2", seconds), np.inf)
    assert made == ["l1"]
    assert [one.name for one in again.all] == ["l1", "late", "full"]
    assert again.all[1].reason and again.all[1].plan is None
    whole = again.all[2]
    assert whole.macs == complexity(trained).macs > 2 * again.all[0].macs
    assert whole.holdout == pytest.approx(context.accuracy(trained, splits.holdout), abs=0.1)
    assert again.best.name == ("l1" if again.all[0].holdout == whole.holdout else "full")


def test_a_killed_run_goes_on_meets_both_budgets_and_says_what_it_tried(tmp_path, trained, monkeypatch):
    given = {"keep_macs": 0.6, "minutes": 5.0, "time_seconds": 0.05, "batch_size": 20, "val_batch_size": 24}
    run = partial(compress, trained, coloured(), test=coloured(60), folder=tmp_path, **given)
    monkeypatch.setattr("secateur.recipes.engine.run.Clock.of", CountedTime(150).clock)
    with pytest.raises(KeyboardInterrupt):
        run()
    before = read_json(tmp_path / "manifest.json")["steps"]
    used = read_json(tmp_path / "clock.json")["seconds"]
    assert list(before) == ["dense", "auto"] and 100 < used <= 150
    monkeypatch.setattr("secateur.recipes.engine.run.Clock.of", CountedTime().clock)
    found = run()
    assert read_json(tmp_path / "manifest.json")["steps"]["auto"] == before["auto"]
    assert 200 < found.report["clock"]["seconds"] <= 1.05 * 300
    assert complexity(found.model).macs <= 0.6 * complexity(trained).macs
    tried = found.report["tried"]
    assert {one["name"] for one in tried} >= {"l1, uniform", "ekg", "netadapt", "taylor, global"}
    (chosen,) = [one for one in tried if one["chosen"]]
    assert chosen["holdout"] == max(one["holdout"] or 0 for one in tried)
    assert found.report["rows"][-1]["macs"] == chosen["macs"]
    last = [row for row in found.report["epochs"] if row["phase"] == "train"][-1]
    assert found.report["taught"]["train"]["teachers"] and last["learning_rate"] < 0.001
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Tried</h2>" in page and chosen["name"] in page
    assert found.report["test_reads"] == 1


def test_a_model_of_numbers_is_pruned_in_a_given_time(monkeypatch):
    """Its own loss chooses between plans and trains; the dense network teaches its numbers."""
    images, _ = coloured()
    shades = images.mean((1, 2)).astype(np.float32) / 100
    classifier = network()
    model = keras.Model(classifier.input, classifier.output)
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(images, shades, epochs=4, batch_size=20, verbose=0)
    monkeypatch.setattr("secateur.recipes.engine.run.Clock.of", CountedTime().clock)
    given = {"keep_macs": 0.6, "minutes": 3.0, "time_seconds": 0.05, "batch_size": 20, "int8": True}
    found = compress(
        model, (images, shades), set=['auto.criteria=["l1", "taylor"]', "auto.searches=[]"], **given
    )
    assert complexity(found.model).macs <= 0.6 * complexity(model).macs
    (chosen,) = [one for one in found.report["tried"] if one["chosen"]]
    before, after = found.report["rows"]
    assert found.report["metric"] == "R²" and after["holdout_accuracy"] >= chosen["holdout"]
    assert found.report["taught"]["train"]["losses"][0]["name"] == "kd"
    lite = Interpreter(model_content=found.files["int8.tflite"])
    assert np.int8 in {one["dtype"] for one in lite.get_tensor_details()}


def test_milliseconds_are_searched_too(tmp_path, trained, monkeypatch, capsys):
    for name in ("milliseconds", "time", "overhead", "slower"):
        monkeypatch.setattr(Setup, name, getattr(Device, name), raising=False)
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "cache"))
    whole, given = Device().time(trained), {"time_seconds": 0.05, "batch_size": 20, "val_batch_size": 24}
    words = ["netadapt.cost=ms", "netadapt.keep=0.6", "train.epochs=1"]
    found = compress(trained, coloured(), recipe="netadapt", set=words, **given)
    assert Device().time(found.model) == pytest.approx(0.6 * whole, rel=0.05)
    assert "netadapt: " in (said := capsys.readouterr().out) and f"of {whole:.3g} ms" in said
    with pytest.raises(UsageError, match="keep_macs is no budget of netadapt.cost=ms"):
        compress(trained, coloured(), recipe="netadapt", keep_macs=0.5, set=words)
    monkeypatch.setattr("secateur.recipes.engine.run.Clock.of", CountedTime().clock)
    found = compress(trained, coloured(), keep_ms=0.6, minutes=5.0, folder=tmp_path / "auto", **given)
    tried = {one["name"] for one in found.report["tried"] if one["macs"]}
    assert tried == {"l1", "fpgm", "netadapt", "taylor"}
    ms = read_json(tmp_path / "auto" / "manifest.json")["steps"]["auto"]["facts"]["ms"]
    assert ms == {"before": whole, "after": Device().time(found.model)}
    assert f"{ms['after']:.3g} of {whole:.3g} ms" in capsys.readouterr().out
    assert Device().time(found.model) == pytest.approx(0.6 * whole, rel=0.05)


def test_minutes_choose_the_recipe_and_others_refuse_them():
    assert choose(["--minutes", "3"]).recipe == choose(["--minutes=3"]).recipe == "auto"
    assert options_of(None, minutes=3.0).recipe == "auto" and options_of(None).recipe == "ekg"
    with pytest.raises(UsageError, match="Received: minutes=3, recipe=kesi"):
        program_of(choose(["--recipe", "kesi", "--minutes", "3"]))


def test_eight_bits_are_a_flag():
    kinds = [step.kind for step in program_of(choose(["--minutes", "3", "--int8"])).steps]
    assert kinds == ["dense", "auto", "train", "int8"]
    assert [step.kind for step in program_of(choose(["--minutes", "3"])).steps] == kinds[:3]


def test_a_budget_is_one_and_is_a_flag():
    (_, auto, *_) = program_of(choose(["--minutes", "3", "--keep_bytes", "0.4"])).steps
    assert auto.budget(RunOptions(train_path="run")) == ("keep_bytes", 0.4)
    (_, auto, *_) = program_of(choose(["--minutes", "3", "--keep_ms", "0.4"])).steps
    assert auto.budget(RunOptions(train_path="run")) == ("keep_ms", 0.4)
