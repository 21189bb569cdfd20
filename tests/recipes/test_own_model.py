"""Every recipe on a model that nobody here built: by one command or call, to a plain small Keras file."""

import ast
import json
import os
import re
import signal
import time
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf

import secateur
from secateur import dataloader, nets
from secateur.dataloader import Facts, Images, Splits
from secateur.dataloader.pipelines import PIXELS
from secateur.pruning import complexity
from secateur.recipes.commands.evaluate import run as evaluate
from secateur.recipes.engine import reading
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.config import EvaluateOptions, RunOptions
from secateur.recipes.engine.reading import candidates
from secateur.recipes.engine.recipe import find_recipe, published_recipes, tables_of
from secateur.recipes.engine.run import run
from secateur.recipes.engine.step import Start, make_step
from secateur.recipes.engine.subject import Subject
from secateur.runs import (
    DataError,
    RunFolderError,
    SnapshotError,
    UsageError,
    load_snapshot,
    read_json,
    sha256,
)
from tests.nets.test_twins import frozen_backbone

pytestmark = pytest.mark.runs
layers = keras.layers
SIDE = 16


def classifier(scaled: bool = True) -> keras.Model:
    """A residual network as others write them: biases, Keras' BN, a frozen stem, softmax and an identity."""
    x = inputs = keras.Input((SIDE, SIDE, 3))
    if scaled:
        x = layers.Rescaling(1 / 127.5, -1)(x)
    x = layers.Conv2D(12, 3, padding="same", activation="relu", name="stem")(x)
    for i, strides in enumerate((2, 2)):
        y = layers.Conv2D(16, 3, strides=strides, padding="same", use_bias=False, name=f"a{i}")(x)
        y = layers.BatchNormalization(momentum=0.9, name=f"bn{i}")(y)
        x = layers.Add()([layers.ReLU()(y), layers.Conv2D(16, 1, strides=strides, name=f"b{i}")(x)])
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling2D()(x))
    x = layers.Softmax(name="shares")(layers.Dense(10, name="head")(x))
    return keras.Model(inputs, layers.Activation("linear", dtype="float32", name="out")(x), name="mine")


@pytest.fixture(scope="session")
def mine(tmp_path_factory):
    """A folder with the model, trained on digits of its own range, and one without a Rescaling inside."""
    folder = tmp_path_factory.mktemp("mine")
    train = dataloader.load("DIGITS", shape=(SIDE, SIDE, 3)).train
    for name, scaled in (("mine", True), ("bare", False)):
        keras.utils.set_random_seed(0)
        model = classifier(scaled)
        model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
        images = train.images.astype("float32")
        model.fit(images if scaled else images / 127.5 - 1, train.labels, 64, epochs=8, verbose=0)
        model.get_layer("stem").trainable = False
        model.save(folder / (f"{name}.keras" if scaled else f"{name}.h5"))
    return folder


def words(folder, recipe: str, *more: object, model: str = "mine") -> list[str]:
    file = folder / (f"{model}.h5" if model == "bare" else f"{model}.keras")
    given = f"{file} --recipe {recipe} --dataset DIGITS --batch_size 32 --train_images 256"
    return [*given.split(), "--time_seconds", "0.01", "--shorten", "0.005", *map(str, more)]


def shortened(recipe: str) -> list[str]:
    """`--set` words that make the loops of a recipe short."""
    kinds = {
        table.get("name", table["kind"]): table["kind"] for table in tables_of(find_recipe(recipe).steps)
    }
    short = {"repeat": "times=2", "anneal": "tries=2", "int8": "epochs=1", "landscape": "side=3"}
    short |= {} if recipe != "backward" else {"repeat": "times=60"}  # it stops where the budget is met
    found = [f"{name}.{short[kind]}" for name, kind in kinds.items() if kind in short]
    found += ["prune_ladder.coupling=group"] if recipe in ("lottery_nni", "lottery_admm") else []
    return ["--set", *found] if found else []


WHOLE = {"baseline", "baseline_cinic", "baseline_hap", "baseline_rethinking", "baseline_wrn", "int8",
         "fewest_bytes", "hap_quant", "kesi_weights", "landscape", "lottery_weights", "distill"}  # fmt: skip
QUICK = {"ekg"}  # the others' steps run in test_programs, on a network of this project


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in published_recipes()],
)
def test_a_recipe_ends_in_a_plain_model_at_its_budget(mine, tmp_path, recipe):
    budget = [] if recipe in WHOLE else ["--keep_macs", 0.6]
    options = choose(words(mine, recipe, "--train_path", tmp_path / "run", *budget, *shortened(recipe)))
    report = run(options)
    small = keras.models.load_model(tmp_path / "run" / "compact.keras", compile=False)
    before, after = report["rows"][0], report["rows"][-1]
    assert complexity(small).macs == after["macs"]
    if budget:
        assert after["macs"] <= 0.6 * before["macs"]
    own = keras.models.load_model(mine / "mine.keras")
    assert {type(layer).__module__.split(".")[0] for layer in small.layers} == {"keras"}
    assert [layer.name for layer in small.layers] == [layer.name for layer in own.layers]
    images = np.full((2, SIDE, SIDE, 3), 9, "float32")
    np.testing.assert_allclose(small(images).numpy().sum(1), 1, rtol=1e-5)
    assert small.get_layer("stem").trainable is False and small.get_layer("bn0").momentum == 0.9
    assert "stem" in report["frozen"]
    assert before["test_accuracy"] > 0.7, "its own Rescaling was found, and it was not trained on first"


def test_the_network_that_is_worked_on_is_the_owners_at_both_ends():
    model = frozen_backbone()
    subject = Subject.own(model)
    back = subject.finished(subject.working(model))
    x = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(back(x), model(x), atol=1e-6)
    assert [back.get_layer(name).trainable for name in ("conv0", "bn1", "head")] == [False, False, True]


def test_what_stays_frozen_keeps_its_weights_and_its_averages_follow_the_cut(mine, tmp_path):
    """A layer behind a cut reads sums of fewer channels, whether it trains or not."""
    own = keras.models.load_model(mine / "mine.keras")
    for name in ("a0", "b0", "bn0", "a1", "b1", "bn1"):
        own.get_layer(name).trainable = False
    own.save(tmp_path / "mine.keras")
    kept = ["--no-unfreeze", "--keep_macs", 0.6, "--train_path", tmp_path / "run"]
    report = run(choose(words(tmp_path, "pfec_a", *kept)))
    assert report["reestimated"] == [], "training moves none of them"
    small = keras.models.load_model(tmp_path / "run" / "compact.keras", compile=False)
    weights = [set(np.round(net.get_layer("bn1").gamma.numpy(), 6)) for net in (small, own)]
    assert weights[0] < weights[1] and not small.get_layer("bn1").trainable
    images = dataloader.load("DIGITS", shape=(SIDE, SIDE, 3)).train.images.astype("float32")
    norm = small.get_layer("bn1")
    seen = keras.Model(small.inputs, norm.input)(images).numpy()
    spread = seen.std((0, 1, 2))
    assert np.abs(norm.moving_mean - seen.mean((0, 1, 2))).max() < 0.1 * spread.max()
    np.testing.assert_allclose(norm.moving_variance, spread**2, rtol=0.15)


def test_the_range_of_pixels_is_found_or_a_wrong_one_refused(mine, tmp_path, capsys):
    """Tried with real users' files: a wrong range ruined the model in four minutes, with exit code 0."""
    dense = ["--until", "baseline", "--train_path"]
    report = run(choose(words(mine, "ekg", *dense, tmp_path / "found", model="bare")))
    said = capsys.readouterr()
    assert "pixels: -1..1" in said.out and "about as well" not in said.err
    assert (report["inputs"]["mean"], report["inputs"]["std"]) == ([127.5] * 3, [127.5] * 3)
    assert report["rows"][0]["test_accuracy"] > 0.7
    wrong = words(mine, "ekg", "--pixels", "0..255", *dense, tmp_path / "wrong", model="bare")
    with pytest.raises(UsageError, match=r"(?s)guessing 10\.0 %.*pixels=0\.\.255.*better: --pixels -1\.\.1 "):
        run(choose(wrong))
    assert not (tmp_path / "wrong").exists()
    assert run(choose([*wrong, "--force"]))["rows"][0]["test_accuracy"] < 0.5


def test_a_close_decision_between_ranges_is_a_warning(mine, tmp_path, capsys, monkeypatch):
    """Of 512 images 90.0 % are right, by chance ± 1.3 %."""
    found = {"-1..1": 0.900, "torch": 0.878, "0..1": 0.860}
    assert reading.as_good(found, "-1..1", 512) == ["torch"]
    assert reading.as_good({"-1..1": 1.0, "torch": 511 / 512, "0..1": 505 / 512}, "-1..1", 512) == ["torch"]
    monkeypatch.setattr(reading, "_accuracies", lambda *args: dict.fromkeys(args[2], 0.1) | found)
    run(choose(words(mine, "ekg", "--until", "baseline", "--train_path", tmp_path / "run", model="bare")))
    assert "warning: torch would fit about as well: say by --pixels" in capsys.readouterr().err


@pytest.mark.parametrize("name, more", [("folder", []), ("CIFAR10", ["rgb"]), ("memory", [])])
def test_every_range_is_tried_once(name, more):
    """ImageNet's constants stand in where a data set has none: "rgb" was offered beside "torch"."""
    assert {*candidates(Facts(name, 2, (8, 8, 3), (0.0,) * 3, (1.0,) * 3, normalisation="0..255"))} == {
        *PIXELS,
        *more,
    }


def test_arrays_are_read_by_the_constants_that_are_given(mine, capsys):
    """mean and std were dropped without a word; options of the shell named no argument."""
    model = keras.models.load_model(mine / "bare.h5")
    train = dataloader.load("DIGITS", shape=(SIDE, SIDE, 3)).train
    data = train.images[:300], train.labels[:300]
    with pytest.raises(
        UsageError,
        match="(?s)guessing.*Received: pixels=given.*better: pixels='-1..1' .*; force=True goes on",
    ):
        secateur.compress(model, data, mean=[0] * 3, std=[1] * 3)
    with pytest.raises(UsageError, match="folder instead. Received: train_path='here'"):
        secateur.compress(model, data, train_path="here")
    with pytest.raises(
        UsageError, match="'netadapt' has no such.*distill='kd'.*\n.*a step of .*netadapt"
    ) as e:
        secateur.compress(model, data, recipe="netadapt", distill="kd")
    assert "dataset" not in str(e.value), "it says train"
    with pytest.raises(
        UsageError, match="^keep=1 removes nothing.*give keep=0.7 instead. Received: keep_macs=0.6"
    ):
        secateur.compress(model, data, recipe="distill", keep_macs=0.6)
    with pytest.raises(UsageError, match="numbers"):
        secateur.compress(model, (data[0] / 255, data[1]), mean=[0] * 3, std=[1] * 3)
    assert "gpu_id" not in capsys.readouterr().err, "no such word was given"


def test_mean_and_std_can_be_said_and_a_snapshot_knows_them(mine, tmp_path, capsys):
    given = ["--mean", 127.5, 127.5, 127.5, "--std", 127.5, 127.5, 127.5]
    report = run(
        choose(
            words(mine, "ekg", *given, "--until", "baseline", "--train_path", tmp_path / "run", model="bare")
        )
    )
    assert report["rows"][0]["test_accuracy"] > 0.7
    snapshot = load_snapshot(tmp_path / "run" / "snap_baseline.pkl")
    assert snapshot.facts["normalisation"] == "given" and snapshot.facts["mean"] == [127.5] * 3
    path = str(tmp_path / "run" / "snap_baseline.pkl")
    one, again, both = evaluate(EvaluateOptions(dataset="DIGITS", trained_param=[path, path]))
    for row in (one, again, both):
        assert row["accuracy"] == report["rows"][0]["test_accuracy"]
    given[1:4] = 127, 127, 127
    run(
        choose(
            words(
                mine, "ekg", *given, "--until", "baseline", "--train_path", tmp_path / "other", model="bare"
            )
        )
    )
    more = f"--dataset DIGITS --train_images 256 --time_seconds 0.01 --train_path {tmp_path / 'next'}"
    start = ["--recipe", "ekg", "--until", "baseline", "--trained_param", path]
    with pytest.raises(SnapshotError, match=r"alike.*given \(\(127.0, .*given \(\(127.5, "):
        run(choose([*start, *more.split(), "--teacher", str(tmp_path / "other" / "snap_baseline.pkl")]))
    capsys.readouterr()
    again = run(choose([*start, *more.split()]))
    assert again["rows"][0]["test_accuracy"] == report["rows"][0]["test_accuracy"]
    said = capsys.readouterr().out
    assert again["config"]["arch"] == "mine" and "· mine ·" in said and "pixels:" not in said


@pytest.mark.parametrize(
    "more, said",
    [
        (["--arch", "ResNet-56"], "--model or --arch"),
        (["--dataset", "CIFAR100", "--data", "photos"], "--data or --dataset"),
        (["--mean", "1", "2", "3"], "--mean and --std go together"),
        (["--recipe", "pfec_a"], "give --keep_macs"),
        (["--keep_macs", "0.0001"], "smallest|out of reach|at least"),
    ],
)
def test_what_does_not_go_together_is_said_in_two_lines(mine, tmp_path, more, said):
    with pytest.raises(UsageError, match=said) as caught:
        run(choose([*words(mine, "ekg", "--train_path", tmp_path / "run"), *more]))
    assert len(str(caught.value).splitlines()) <= 2


def test_a_model_of_which_nothing_goes_is_told_so_by_every_door():
    x = keras.Input((8, 8, 3))
    y = layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(x, y, name="thin")
    data = np.zeros((60, 8, 8, 3), "float32"), np.arange(60) % 3
    for recipe in ("ekg", "netadapt", "pfec_a"):
        with pytest.raises(UsageError, match="No channel of .* can be removed. .*'thin': dense must stay"):
            secateur.compress(model, data, recipe=recipe, **SHORT)


@pytest.mark.slow  # kills are those of test_interrupted, snapshots of such models those of the tests above
def test_a_killed_run_on_ones_own_model_ends_in_the_same_bits(mine, programs, tmp_path):
    short = ["--set", "search_ekg.step=0.5", "--keep_macs", 0.7]
    whole = programs.run("train_cifar.py", *words(mine, "ekg", *short, "--train_path", "whole"), cwd=tmp_path)
    assert whole.code == 0, whole.err
    for pattern in ("checkpoint_search_ekg-*.pkl", "bank.npy", "trained_param.pkl"):
        process = programs.start(
            "train_cifar.py", *words(mine, "ekg", *short, "--train_path", "killed"), cwd=tmp_path
        )
        for _ in range(3000):
            if any((tmp_path / "killed").glob(pattern)):
                break
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        programs.wait()
    done = programs.run("train_cifar.py", *words(mine, "ekg", *short, "--train_path", "killed"), cwd=tmp_path)
    assert done.code == 0, done.err
    assert "killed: goes on behind step bank\n" in done.out
    for name in ("snap_baseline.pkl", "slimmed_param.pkl", "bank.npy", "trained_param.pkl"):
        assert sha256(tmp_path / "killed" / name) == sha256(tmp_path / "whole" / name), name


def data(kind: str):
    """Images, labels and a model of them, compiled with the loss of its task."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(160, 12, 12, 3)).astype("float32")
    means = x.mean((1, 2))
    tensor = inputs = keras.Input((12, 12, 3))
    tensor = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(16, 3, padding="same")(tensor)))
    tensor = layers.Conv2D(16, 3, padding="same", activation="relu")(tensor)
    pooled = layers.GlobalAveragePooling2D()(tensor)
    if kind == "numbers":
        outputs, labels, loss = layers.Dense(2)(pooled), means[:, :2] * 10, "mse"
    elif kind == "labels":
        outputs, labels = layers.Dense(3, "sigmoid")(pooled), (means > 0).astype("float32")
        loss = "binary_crossentropy"
    else:
        outputs, labels = layers.Conv2D(2, 1, activation="softmax")(tensor), (x[..., 0] > 0).astype("int32")
        loss = keras.losses.SparseCategoricalCrossentropy()
    model = keras.Model(inputs, outputs, name=kind)
    model.compile("adam", loss)
    return model, x, labels


@pytest.mark.parametrize(
    "kind, metric", [("numbers", "R²"), ("labels", "labels right"), ("maps", "pixels right")]
)
def test_models_that_are_no_classifiers_learn_from_labels_and_from_several_teachers(kind, metric, capsys):
    """A gradient criterion and the model's own loss; then the dense and the pruned network teach."""
    model, x, labels = data(kind)
    steps = ["prune_fixed.criterion=taylor", "rounds.times=1", "train.epochs=12", "train.learning_rate=0.05"]
    found = secateur.compress(
        model, (x, labels), recipe="kesi", keep_macs=0.6, batch_size=16, time_seconds=0.01,
        set=[*steps, "distil.epochs=2", "distil.label_weight=1.0"],
    )  # fmt: skip
    found.show()
    assert metric in " ".join(capsys.readouterr().out.split()), "in place of accuracy"
    assert found.report["metric"] == metric and len(found.report["taught"]["distil"]["teachers"]) == 2
    terms = found.report["epochs"][-1]
    assert terms["unweighted_kd"] > 0 and np.isfinite(terms["loss"])
    before, after, last = found.report["rows"]
    assert last["macs"] <= 0.6 * before["macs"]
    assert after["holdout_accuracy"] > before["holdout_accuracy"], "it was not trained before"
    assert found.model.outputs[0].shape == model.outputs[0].shape
    if kind != "numbers":
        assert 0 <= float(found.model(x[:4]).numpy().min()), "shares, as they came"


def test_a_model_of_several_outputs_is_searched_and_trained_by_its_losses(tmp_path, capsys):
    model, x, means = data("numbers")
    both = keras.Model(model.input, [model.output, layers.Dense(2, "softmax")(model.layers[-2].output)])
    both.compile("adam", ["mse", "sparse_categorical_crossentropy"])
    labels = [means, (means[:, 0] > 0).astype("int32")]
    short = {"keep_macs": 0.7, "shorten": 0.01, "batch_size": 16, "time_seconds": 0.01}
    run = partial(secateur.compress, both, (x, labels), recipe="ekg", folder=tmp_path / "run", **short)
    with pytest.raises(UsageError, match="(?s)Loss 'kd' compares.*of several outputs") as error:
        run()
    alone = ast.literal_eval(str(error.value).partition("labels alone: set=")[2])
    found = run(set=[*alone, "search_ekg.step=0.2"])
    assert [tuple(output.shape) for output in found.model.outputs] == [(None, 2), (None, 2)]
    assert complexity(found.model).macs <= 0.7 * complexity(both).macs
    assert found.report["metric"] == "−loss" and len(found.report["search"]) > 1
    found.show()
    assert f"{found.report['rows'][-1]['holdout_accuracy']:.4f}" in capsys.readouterr().out, "no share"


def test_a_bank_answers_for_teachers_of_maps():
    model, x, labels = data("maps")
    found = secateur.compress(
        model, (x, labels), recipe="ekg", keep_macs=0.7, shorten=0.01, batch_size=16, time_seconds=0.01,
        num_teacher=2, set=["search_ekg.step=0.1"],
    )  # fmt: skip
    assert len(found.report["bank"]["teachers"]) == 2
    assert found.report["epochs"][-1]["unweighted_kd"] > 0


def test_arrays_tf_data_and_folders_give_the_same_network(mine, tmp_path, capsys):
    model = keras.models.load_model(mine / "mine.keras")
    splits = dataloader.load("DIGITS", shape=(SIDE, SIDE, 3))
    x, y = splits.train.images[:300], splits.train.labels[:300]
    how = {"recipe": "ekg", "keep_macs": 0.7, "shorten": 0.01, "batch_size": 32, "time_seconds": 0.01}
    how |= {"Knowledge": False, "set": ["search_ekg.step=0.5"], "balanced": True}
    once = secateur.compress(model, (x, y), (x[:30], y[:30]), **how, folder=tmp_path / "run")
    again = secateur.compress(model, tf.data.Dataset.from_tensor_slices((x, y)), (x[:30], y[:30]), **how)
    assert all(
        np.array_equal(a, b) for a, b in zip(once.model.get_weights(), again.model.get_weights(), strict=True)
    )
    assert once.folder == tmp_path / "run" and again.folder is None
    said = capsys.readouterr().out
    assert "balanced: each of 10 classes comes 2" in said and "goes on" not in said
    secateur.compress(model, (x, y), (x[:30], y[:30]), **how, folder=tmp_path / "run")
    assert "goes on" not in capsys.readouterr().out  # it is complete
    assert read_json(tmp_path / "run" / "report.json")["test_reads"] == 0
    assert "test_accuracy" not in once.report["rows"][0]
    assert nets.load_params(None, tmp_path / "run" / "trained_param.pkl").output_shape == (None, 10)
    with pytest.raises(UsageError, match="keep_mac=0.7.*keep_macs"):
        secateur.compress(model, (x, y), recipe="ekg", keep_mac=0.7)
    with pytest.raises(UsageError, match="12"):
        secateur.compress(model, (x, np.where(y == 3, 12, y)))


def toy(units=3, end="softmax", loss=None, seed=0):
    """Images of normal numbers, the class of each, and a model of them that is trained a little."""
    keras.utils.set_random_seed(seed)
    x = np.random.default_rng(0).normal(size=(120, 8, 8, 3)).astype("float32")
    y = x.mean((1, 2))[:, : max(2, units)].argmax(1).astype("int32")
    inputs = keras.Input((8, 8, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, activation="relu")(inputs))
    model = keras.Model(inputs, layers.Dense(units, end)(pooled), name="toy")
    model.compile(keras.optimizers.Adam(0.03), loss or ("binary_crossentropy" if units == 1 else None))
    return model, x, y


SHORT = {"keep_macs": 0.7, "shorten": 0.01, "batch_size": 16, "time_seconds": 0.01, "force": True}


@pytest.mark.parametrize(
    "recipe, units, loss, form",
    [
        ("ekg", 3, "categorical_crossentropy", lambda y: np.eye(3)[y]),
        (
            "kesi",
            3,
            keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
            lambda y: np.eye(3, dtype=int)[y],
        ),
        ("kesi", 3, None, lambda y: y.astype("float32")),
        ("ekg", 1, None, lambda y: y[:, None].astype("float64")),
    ],
)
def test_every_form_of_labels_of_classes_is_taught_by_the_dense_model(recipe, units, loss, form):
    """The first step with a teacher refused them, and a row's class was compared with its shares."""
    model, x, y = toy(units, "sigmoid" if units == 1 else "softmax", loss)
    model.fit(x, form(y), epochs=3, verbose=0) if loss else None
    found = secateur.compress(model, (x, form(y)), (x, form(y)), recipe=recipe, balanced=True, **SHORT)
    right = model.predict(x, verbose=0)
    right = np.mean((right.argmax(1) if units > 1 else right[:, 0] > 0.5) == y)
    assert found.report["rows"][0]["holdout_accuracy"] == pytest.approx(right)
    assert found.report["epochs"][-1]["unweighted_kd"] >= 0


def test_labels_of_two_classes_at_once_and_classes_that_are_none_are_refused():
    model, x, y = toy(loss="categorical_crossentropy")
    with pytest.raises(UsageError, match=r"(?s)or one-hot. Received: shares.*0.9.*give labels.argmax"):
        secateur.compress(model, (x, 0.9 * np.eye(3)[y] + 0.1 * np.eye(3)[0]), recipe="kesi", **SHORT)
    model.compile(loss="mse")
    with pytest.raises(UsageError, match="^balanced=True counts the images .* loss=mean_squared_error"):
        secateur.compress(model, (x, np.eye(3)[y]), recipe="kesi", balanced=True, **SHORT)


def test_a_folder_belongs_to_one_model_loss_and_data(tmp_path):
    """With another one of the same name the old network came back without a word."""
    model, x, y = toy()
    run = partial(secateur.compress, recipe="netadapt", folder=tmp_path / "run", **SHORT)
    first = run(model, (x, y))
    model.save(tmp_path / "toy.keras")
    again = keras.models.load_model(tmp_path / "toy.keras")
    assert run(again, (x, y)).report["date"] == first.report["date"]
    retrained, longer = toy(seed=1)[0], np.concatenate([x, x])
    tuned = keras.losses.SparseCategoricalCrossentropy
    for what, other, data, more in (
        ("model", retrained, (x, y), {}),
        ("train labels", model, (x, y[::-1]), {}),
        ("train images", model, (x[::-1], y), {}),
        ("train images", model, (longer, np.concatenate([y, y])), {}),
        ("loss", model, (x, y), {"loss": tuned()}),
        ("unfreeze", model, (x, y), {"unfreeze": False}),
    ):
        with pytest.raises(
            RunFolderError, match=f"another run: .*{what}.* Received: .{{,99}}\nchoose another folder"
        ):
            run(other, data, **more)
    config = read_json(tmp_path / "run" / "config.json")
    del config["in_memory"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    assert run(model, (x, y)).report["date"] == first.report["date"], "of an earlier version"


@keras.saving.register_keras_serializable("tests")
def steep(one_hot, shares):
    """A focal loss as people write it."""
    return keras.ops.mean(keras.ops.sum(-one_hot * (1 - shares) ** 3 * keras.ops.log(shares + 1e-7), -1))


def test_a_classifier_with_a_focal_or_own_loss_learns_from_folders(secateur, stripes, tmp_path):
    """It was taken for something else than a classifier: "needs labels" of a folder that has them."""
    model = keras.models.load_model(stripes / "stripes.keras")
    short = f"--data {stripes / 'images'} --recipe ekg --no-Knowledge --keep_macs 0.8 --shorten 0.02"
    short += " --time_seconds 0.01"
    for name, loss in (("focal", keras.losses.CategoricalFocalCrossentropy(gamma=3)), ("own", steep)):
        model.compile("adam", loss)
        model.save(tmp_path / f"{name}.keras")
        secateur("train", f"{name}.keras", *short.split(), "--train_path", name)
        report = read_json(tmp_path / name / "report.json")
        assert report["metric"] == "accuracy" and report["rows"][0]["holdout_accuracy"] > 0.7
        assert 0 < report["epochs"][-1]["loss"] < 0.1, "of a focal loss"
        kept = load_snapshot(tmp_path / name / "trained_param.pkl").facts["class_names"]
        assert kept == report["class_names"] == ["lying", "upright"]
    flipped = tmp_path / "flipped"
    flipped.mkdir()
    for there, here in (("lying", "upright"), ("upright", "lying")):
        (flipped / here).symlink_to(stripes / "images" / there)
    other = short.replace(str(stripes / "images"), str(flipped))
    with pytest.raises(UsageError, match="guessing 50.0 %"):
        secateur("train", "own.keras", *other.split(), "--train_path", "flipped_run")
    model.compile("adam", "mse")
    model.save(tmp_path / "mse.keras")
    with pytest.raises(
        DataError, match=r"(?s)loss=mean_squared_error\n--loss categorical_crossentropy takes"
    ):
        secateur("train", "mse.keras", *short.split(), "--train_path", "mse")
    given = ["--loss", "categorical_crossentropy", "--until", "baseline", "--train_path", "mse"]
    assert "accuracy" in secateur("train", "mse.keras", *short.split(), *given)


def test_integers_for_a_loss_of_ones_own_are_counted_as_classes():
    model, x, y = toy(loss="categorical_crossentropy")
    model.fit(x, np.eye(3)[y], epochs=2, verbose=0)

    def sparse(labels, shares):
        return -keras.ops.log(keras.ops.take_along_axis(shares, labels[:, None], 1)[:, 0] + 1e-7)

    taught = {"recipe": "kesi", **SHORT}
    for loss, labels in ((sparse, y), ("categorical_hinge", np.eye(3)[y])):
        found = secateur.compress(model, (x, labels), (x, labels), loss=loss, **taught).report
        right = np.mean(model.predict(x, verbose=0).argmax(1) == y)
        assert found["metric"] == "accuracy" and found["epochs"][-1]["unweighted_kd"] > 0
        assert found["rows"][0]["holdout_accuracy"] == pytest.approx(right)


def test_snapshots_say_what_they_give_to_test_py(tmp_path, capsys):
    """Regression with as many outputs as classes was scored as one of classes."""
    x, _ = np.random.default_rng(0).integers(0, 255, (2, 60, 16, 16, 3), dtype="uint8")
    labels = np.arange(60) % 10
    inputs = keras.Input((16, 16, 3))
    features = layers.Conv2D(8, 5, strides=4, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(features)), name="ten")
    both = keras.Model(inputs, [model.output, layers.Dense(1)(layers.Flatten()(features))], name="both")
    recipe = tmp_path / "dense.toml"
    recipe.write_text('about = "as it came"\n[[steps]]\nkind = "dense"\nepochs = 0\nshown = true\n')
    tried = (
        (model, "mse", np.random.normal(size=(60, 10)), "loss=mean_squared_error"),
        (both, ["mse", "mae"], [np.zeros((60, 10)), np.zeros((60, 1))], "mean_squared_error + mean_abs"),
        (model, "categorical_hinge", labels, None),
    )
    for number, (network, loss, given, said) in enumerate(tried):
        network.compile(loss=loss)
        folder = tmp_path / str(number)
        secateur.compress(
            network, (x, given), recipe=str(recipe), folder=folder, time_seconds=0.01, force=True,
        )  # fmt: skip
        how = {"dataset": "DIGITS@16", "trained_param": [str(folder / "snap_dense.pkl")]}
        if said:
            with pytest.raises(UsageError, match=rf"(?s)something else.*{re.escape(said)}.*\n--loss categ"):
                evaluate(EvaluateOptions(**how))
        else:
            loss = evaluate(EvaluateOptions(**how))[0]["loss"]
        if loss == "mse":
            start = ["--recipe", "ekg", "--no-Knowledge", "--trained_param", how["trained_param"][0]]
            with pytest.raises(DataError, match="loss=mean_squared_error"):
                run(choose([*start, "--dataset", "DIGITS@16", "--train_path", str(tmp_path / "run")]))
        if network is model:
            rows = evaluate(EvaluateOptions(**how, loss="categorical_crossentropy"))
            assert "accuracy" in capsys.readouterr().out and 0 <= rows[0]["accuracy"] <= 1
    assert loss != rows[0]["loss"], "a hinge"


class Tilted(keras.layers.Layer):
    """A class that nobody has registered, and whose file is read with custom_objects."""

    def call(self, x):
        return tf.cumsum(x, axis=1) / 8


def test_classes_of_a_custom_object_scope_are_known_while_it_is_open(tmp_path):
    plain, x, y = toy()
    tensor = plain.get_layer(index=1)(Tilted(name="tilted")(plain.input))
    model = keras.Model(plain.input, plain.layers[3](plain.layers[2](tensor)), name="tilted")
    model.save(tmp_path / "tilted.keras")
    model = keras.models.load_model(tmp_path / "tilted.keras", custom_objects={"Tilted": Tilted})
    with pytest.raises(UsageError, match="custom_object_scope.*Tilted"):
        secateur.compress(model, (x, y), recipe="netadapt", **SHORT)
    with keras.saving.custom_object_scope({"Tilted": Tilted}):
        found = secateur.compress(model, (x, y), recipe="netadapt", folder=tmp_path / "run", **SHORT)
        nets.load_params(None, tmp_path / "run" / "snap_train.pkl")
    assert isinstance(found.model.get_layer("tilted"), Tilted)


def test_few_images_do_not_stop_a_model_that_need_not_be_trained():
    """netadapt trains its own nets in batches of 64."""
    model, x, y = toy()
    few = Images(x[:40], y[:40], np.arange(40))
    splits = Splits(few, few, few, few, Facts("memory", 3, (8, 8, 3), (0.0,), (1.0,)), None)
    step, options = make_step({"kind": "dense", "batch_size": 64}), RunOptions(train_path="run")
    step.check(Start(options, Subject.own(model), splits, 1))
    with pytest.raises(DataError, match="must not exceed the 40 training images"):
        step.check(Start(options.model_copy(update={"from_scratch": True}), Subject.own(model), splits, 1))
