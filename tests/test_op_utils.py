"""The train step however it is divided, its pure twin, and evaluation."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import op_utils
from secateur.distillation import labels_only
from secateur.nets import FusedBatchNorm
from secateur.op_utils import Trainer, make_forward, make_strategy, nesterov_update, pure_gradients, pure_step
from secateur.op_utils import reestimate_batch_norm as reestimate
from secateur.runs import TrainingError, UsageError
from tests.helpers.replicated_training import ADJUSTED, AUGMENTED, WAYS, data, network, read, scaled


def trainer_of(model: keras.Model, **options) -> Trainer:
    return Trainer(model, read, labels_only, **options)


def train(trainer: Trainer, batches: list, rate: float = 0.05, first: int = 0) -> list:
    seeds = [(1, first + i) for i in range(len(batches))]
    return list(trainer.train(batches, seeds, [rate] * len(batches)))


def difference(a: dict, b: dict) -> float:
    assert a.keys() == b.keys()
    return max(float(np.abs(a[k] - b[k]).max()) for k in a)


# --- fewer bits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bits"), [("mixed_bfloat16", 8), ("mixed_float16", 11)])
def test_steps_of_fewer_bits_are_those_in_float32_to_these_bits(dtype, bits):
    """Kernels, momenta and averages stay float32; the model is as before when it is over."""
    found = {}
    for computed in ("float32", dtype):
        model = network("live")
        with op_utils.computing_in(computed, model):
            inner = model(read(data(1)[0], None)).dtype
            trainer = trainer_of(model, scaled=computed == "mixed_float16")
            metrics = train(trainer, data(4))
            logits = make_forward(model, lambda x: read({"images": x}, None))(data(1)[0]["images"])
        assert inner == computed.removeprefix("mixed_") and logits.dtype == np.float32
        assert {layer.dtype_policy.name for layer in model.layers} == {"float32"}
        state = {v.path: np.array(v) for v in [*model.variables, *trainer.optimizer.state()]}
        assert {array.dtype.name for array in state.values()} == {"float32"}
        found[computed] = np.array(metrics)[:, 0], logits, [*state.values()]
    (exact, right, state), (fewer, near, moved) = found.values()
    rounding = 2.0 ** (8 - bits)
    np.testing.assert_allclose(fewer, exact, rtol=0.02 * rounding)
    assert 0 < np.abs(near - right).max() < 0.05 * rounding * np.ptp(right)
    assert 0 < max(np.abs(a - b).max() for a, b in zip(state, moved, strict=True)) < 0.05 * rounding


def weighted(logits, batch):
    """The usual loss, by a factor that the batch has."""
    loss, accuracy = labels_only(logits, batch)
    return loss * tf.reduce_mean(batch["factor"]), accuracy


def with_factors(*factors: float) -> list[dict]:
    return [
        batch | {"factor": np.full(len(batch["labels"]), factor, np.float32)}
        for batch, factor in zip(data(len(factors)), factors, strict=True)
    ]


def test_small_gradients_of_float16_do_not_vanish():
    """The largest of them at the logits is 1e-8, of which float16 has nothing left."""
    kernels = []
    for dtype, factor in (("float32", False), ("mixed_float16", True), ("mixed_float16", False)):
        model = network("frozen")
        before = model.get_layer("fc").kernel.numpy()
        with op_utils.computing_in(dtype, model):
            trainer = Trainer(model, read, weighted, momentum=0.0, scaled=factor)
            train(trainer, with_factors(1e-7), rate=1e6)
        kernels.append(model.get_layer("fc").kernel.numpy() - before)
    exact, near, lost = kernels
    np.testing.assert_allclose(near, exact, atol=0.01 * np.abs(exact).max())
    assert np.abs(lost).max() < 0.2 * np.abs(exact).max()


def test_a_step_that_overflows_float16_is_skipped_and_the_scale_halved():
    """A trainer that is restored goes on with its scale, and in the same bits."""
    states, batches = [], with_factors(*[40.0] * 12)
    for cut in (12, 5):
        model = network("live")
        with op_utils.computing_in("mixed_float16", model):
            trainer = Trainer(model, read, weighted, scaled=True)
            before = trainer.state()
            train(trainer, batches[:cut], rate=1e-3)
            if cut < 12:
                kept, skipped = trainer.state(), trainer.skipped
                trainer = Trainer(model, read, weighted, scaled=True)
                trainer.restore(kept)
                trainer.skipped = skipped
                train(trainer, batches[cut:], rate=1e-3, first=cut)
        states.append(trainer.state())
        scale = trainer._scale.value.numpy()
        assert 0 < trainer.skipped < 12 and scale == 2.0 ** (15 - trainer.skipped)
        assert 0 < trainer._scale.steady.numpy() <= 12 - trainer.skipped
    assert difference(*states) == 0 and difference(states[0], before) > 0


@pytest.mark.parametrize(
    "config",
    [
        "{",
        {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 1}},
        {"cluster": {"worker": ["a:1", "b:1"]}},
        {"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}},
    ],
)
def test_a_cluster_without_a_place_for_this_process_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config if isinstance(config, str) else json.dumps(config))
    with pytest.raises(UsageError, match="TF_CONFIG"):
        make_strategy((), cluster=True)
    assert make_strategy(()).num_replicas_in_sync == 1  # of a program that is none of the workers


def test_threads_take_the_device_that_was_asked_for():
    """They are in no scope of a strategy: `--gpu_id 1` is to be the second one in a search, too."""
    workers = op_utils.Workers(tf.distribute.OneDeviceStrategy("/cpu:0"))
    found = workers.spread(lambda x: (x, tf.constant(0.0).device), range(3), threads=2)
    assert workers.devices[0].endswith("CPU:0") and [x for x, _ in found] == [0, 1, 2]
    assert {device.endswith("CPU:0") for _, device in found} == {True}


def test_one_worker_waits_for_nobody(monkeypatch):
    alone = {"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(alone))
    workers = op_utils.Workers(make_strategy((), cluster=True))
    assert (workers.index, workers.count, workers.follows) == (0, 1, False)
    assert workers.agreed(3.5) == 3.5


# --- devices, replicas, micro-batches ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def divided(programs, tmp_path_factory, request) -> dict[str, np.ndarray]:
    """Weights after three steps on 1, 2 and 4 logical CPUs, whole and in parts, with and without XLA."""
    folder = tmp_path_factory.mktemp("replicas")
    done = programs.run("tests/helpers/replicated_training.py", "found.npz", request.param, cwd=folder)
    assert done.code == 0, done.err[-2000:]
    return dict(np.load(folder / "found.npz"))


def test_a_batch_may_be_divided_in_any_way(divided):
    plain = {key: value for key, value in divided.items() if re.fullmatch(r"\d/\d/\w+/\d+", key)}
    assert len({key.rpartition("/")[0] for key in plain}) >= len(WAYS)
    for key, found in plain.items():
        expected = divided[f"1/1/False/{key.rpartition('/')[2]}"]
        np.testing.assert_allclose(found, expected, atol=4e-6, rtol=0, err_msg=key)


@pytest.mark.parametrize(("replicas", "accum"), AUGMENTED)
def test_what_images_draw_does_not_depend_on_how_the_batch_is_divided(divided, replicas, accum):
    """Gradients of a step on crops, flips and colours."""
    keys = [key for key in divided if key.startswith("1/augmented/1/")]
    for key in keys:
        found = divided[f"{replicas}/augmented/{accum}/{key.rpartition('/')[2]}"]
        np.testing.assert_allclose(found, divided[key], atol=1e-6, rtol=0)
    assert np.abs(divided[keys[0]] - divided["1/synchronised/frozen/0"]).max() > 1e-3


@pytest.mark.parametrize("replicas", [2, 4])
def test_fifty_steps_have_the_losses_of_one_device(divided, replicas):
    one = divided["1/curve"]
    np.testing.assert_allclose(divided[f"{replicas}/curve"], one, atol=1e-4)
    assert one.shape == (50,) and np.ptp(one) > 0.1


def test_the_weights_of_the_divided_batches_have_moved(divided):
    before = network("frozen").get_layer("conv").kernel.numpy()
    assert np.abs(divided["1/1/False/0000"] - before).max() > 1e-3


def kernels(divided, how: str) -> list[np.ndarray]:
    found = [value for key, value in divided.items() if f"/{how}/" in key]
    assert len(found) >= len(ADJUSTED)
    return found


def test_adjusted_gradients_add_up_over_replicas(divided):
    expected = divided["1/adjusted/False"]
    for found in kernels(divided, "adjusted"):
        np.testing.assert_allclose(found, expected, atol=4e-6, rtol=0)
        assert (found[..., 2] == 0).all() and (np.delete(found, 2, -1) != 0).all()
    assert np.abs(expected - divided["1/1/False/0000"]).max() > 1e-2  # the penalty counts


def test_shared_weights_stay_shared_over_replicas(divided):
    expected = divided["1/shared/False"]
    _, labels = np.unique(expected, return_inverse=True)
    for found in kernels(divided, "shared"):
        np.testing.assert_allclose(found, expected, atol=4e-6, rtol=0)
        assert (found[..., 2] == 0).all() and len(np.unique(found)) == 5
        assert all(len(np.unique(found.ravel()[labels.ravel() == i])) == 1 for i in range(5))


@pytest.mark.parametrize("device", ["1", "2", "second"])
def test_images_in_the_devices_memory_train_the_same_weights(divided, device):
    """On one device, on two that each hold them all, and on the second of two."""
    for key in (key for key in divided if key.startswith(f"{device}/resident/")):
        expected = divided[f"1/1/False/{key.rpartition('/')[2]}"]
        np.testing.assert_allclose(divided[key], expected, atol=4e-6, rtol=0, err_msg=key)
    assert f"{device}/resident/0000" in divided


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_report_the_mean_of_their_bn_statistics(divided, replicas):
    """Four shares of four images, as 1 × 4 micro-batches, 2 × 2 and 4 × 1, are the same groups."""
    np.testing.assert_allclose(divided[f"{replicas}/live/mean"], divided["1/live/mean"], atol=4e-6)


@pytest.mark.parametrize("replicas", [2, 4])
def test_statistics_over_replicas_give_the_gradients_of_the_whole_batch(divided, replicas):
    """With --sync_bn a step on several is that on one, gradients and averages; ours and Keras' own."""
    keys = [key.removeprefix("1/") for key in divided if key.startswith("1/synchronised/")]
    assert len(keys) == (3 + 2) + 2 * (5 + 2)
    for key in keys:
        np.testing.assert_allclose(divided[f"{replicas}/{key}"], divided[f"1/{key}"], atol=1e-6, err_msg=key)
    one, several = (divided[f"{n}/synchronised/live/0"] for n in (1, replicas))
    assert np.abs(one).max() > 1e-2 and (one != several).any()


def test_the_loss_of_float16_is_scaled_down_on_all_replicas_where_one_overflows(divided):
    """Weights, moments, Adam's count of steps, and the factor of the loss, which has been halved."""
    keys = [key for key in divided if key.startswith("1/scaled/")]
    for key in keys:
        found = divided[f"2{key[1:]}"]
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, divided[key], atol=4e-6, rtol=0, err_msg=key)
    assert [int(divided[f"2/scaled/{name}"]) for name in (*last(keys, 3), "skipped")] == [2, 2**14, 1, 1]


def last(keys: list[str], count: int) -> list[str]:
    """Of the numbers of variables."""
    return sorted(key.rpartition("/")[2] for key in keys if key[-1].isdigit())[-count:]


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_a_restored_trainer_evaluates_alike_under_a_strategy(divided, replicas):
    logits, (first,) = np.split(divided[f"{replicas}/live/logits"], [20])
    np.testing.assert_allclose(divided[f"{replicas}/live/restored"], logits, atol=1e-6)
    assert logits.shape == (20, 4)
    np.testing.assert_allclose(first, logits[0], atol=1e-6)
    assert divided[f"{replicas}/live/traces"] == replicas + (replicas > 1)  # on each, and for a single image
    reestimated = divided[f"{replicas}/live/reestimated"]
    np.testing.assert_allclose(reestimated, divided["1/live/reestimated"], atol=2e-5)


def test_micro_batches_average_one_bn_update_each():
    model, (batch,) = network("live"), data(1, 12)
    norm, momentum = model.get_layer("bn"), model.get_layer("bn").momentum
    norm.moving_mean.assign(np.linspace(-1, 1, 6))
    kernel = model.get_layer("conv").kernel.numpy()
    images = batch["images"].astype(np.float32) / 128 - 1
    maps = tf.nn.conv2d(images, kernel, 1, "SAME").numpy().astype(np.float64)
    updates = [
        momentum * np.linspace(-1, 1, 6) + (1 - momentum) * m.mean((0, 1, 2)) for m in np.split(maps, 3)
    ]
    train(trainer_of(model, accum=3), [batch])
    np.testing.assert_allclose(norm.moving_mean.numpy(), np.mean(updates, 0), atol=1e-6)


def test_without_a_gpu_one_line_says_so(capfd):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    assert make_strategy([0]).num_replicas_in_sync == 1
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("warning: no GPU") and "--gpu_id 0" in lines[0]


@pytest.mark.parametrize("ids", [[-1], [0, 0]])
def test_impossible_gpu_ids_are_refused(ids):
    with pytest.raises(UsageError, match="Received: gpu_id="):
        make_strategy(ids)


def test_xla_is_by_device_unless_forced():
    on_cpu = not tf.config.list_logical_devices("GPU")
    assert op_utils.use_xla(None) is not on_cpu
    assert op_utils.use_xla(True) and not op_utils.use_xla(False)


@pytest.mark.parametrize(("size", "accum"), [(10, 4), (15, 2)])
def test_a_batch_that_does_not_divide_is_named(size, accum):
    trainer = trainer_of(network("live"), accum=accum)
    with pytest.raises(UsageError, match=f"Received: batch_size={size}"):
        train(trainer, data(1, size))


# --- the update --------------------------------------------------------------------------------------------


def test_nesterov_equals_keras_over_changing_rates():
    rng = np.random.default_rng(0)
    rates = [0.1, 0.1, 0.02, 0.02, 0.5]
    variable = keras.Variable(rng.normal(size=(7, 3)).astype("float32"))
    optimizer = keras.optimizers.SGD(0.0, momentum=0.9, nesterov=True)
    optimizer.build([variable])
    params, momenta = [tf.constant(variable.numpy())], [tf.zeros((7, 3))]
    for rate in rates:
        gradient = tf.constant(rng.normal(size=(7, 3)).astype("float32"))
        optimizer.learning_rate = rate
        optimizer.apply([gradient], [variable])
        params, momenta = nesterov_update(params, momenta, [gradient], rate)
        np.testing.assert_allclose(params[0].numpy(), variable.numpy(), atol=1e-6)


@pytest.mark.parametrize("accum", [1, 2])
def test_weight_decay_is_the_gradient_of_half_the_squared_norm_of_every_weight(accum):
    model, (batch,) = network("live"), data(1)
    params, stats = list(model.trainable_variables), list(model.non_trainable_variables)
    arguments = [p.value for p in params], [s.value for s in stats], batch, tf.constant([1, 0])
    plain, _, _ = pure_gradients(model, read, labels_only, 0.0, accum)(*arguments)
    decayed, _, _ = pure_gradients(model, read, labels_only, 0.3, accum)(*arguments)
    assert {p.name for p in params} == {"kernel", "gamma", "beta", "bias"}
    for a, b, p in zip(plain, decayed, params, strict=True):
        np.testing.assert_allclose(b - a, 0.3 * p.numpy(), atol=1e-6)


@pytest.mark.parametrize("accum", [1, 2])
def test_gradients_are_adjusted_once_a_step_after_decay_and_told_the_scale(accum):
    model, (batch,) = network("live"), data(1)
    params, stats = (
        [p.value for p in model.trainable_variables],
        [s.value for s in model.non_trainable_variables],
    )
    arguments, common = (
        (params, stats, batch, tf.constant([1, 0])),
        (model, read, labels_only, 0.3, accum, 0.5),
    )
    plain, *_ = pure_gradients(*common)(*arguments)
    function = pure_gradients(*common, lambda g, p, s: [2 * a + s * b**3 for a, b in zip(g, p, strict=True)])
    for a, b, p in zip(plain, function(*arguments)[0], params, strict=True):
        np.testing.assert_allclose(b, 2 * a + 0.5 * p**3, atol=1e-6)


def test_adjusting_traces_the_step_once():
    """Also where it reads variables, which are set between two epochs."""
    calls, factor = [], keras.Variable(0.0, trainable=False)

    def adjust(gradients, parameters, scale):
        calls.append(scale)
        return [gradient * factor.value for gradient in gradients]

    trainer = trainer_of(network("live"), adjust=adjust, accum=2)
    before = trainer.model.get_layer("conv").kernel.numpy()
    train(trainer, data(2))
    np.testing.assert_array_equal(trainer.model.get_layer("conv").kernel.numpy(), before)
    factor.assign(1.0)
    train(trainer, data(2))
    assert np.abs(trainer.model.get_layer("conv").kernel.numpy() - before).max() > 1e-3
    assert calls == [1.0]


def test_gradients_agree_with_finite_differences():
    model, (batch,) = network("live"), data(1)
    stats = [s.value for s in model.non_trainable_variables]
    params = [tf.constant(p.numpy()) for p in model.trainable_variables]
    function = pure_gradients(model, read, labels_only)
    gradients, _, _ = function(params, stats, batch, tf.constant([1, 0]))
    rng, step = np.random.default_rng(1), 1e-3
    direction = [rng.normal(size=p.shape).astype("float32") for p in params]

    def loss_at(distance: float) -> float:
        moved = [p + distance * d for p, d in zip(params, direction, strict=True)]
        return float(function(moved, stats, batch, tf.constant([1, 0]))[2][0])

    losses = [loss_at(-step), loss_at(step)]
    along = sum(float(tf.reduce_sum(g * d)) for g, d in zip(gradients, direction, strict=True))
    assert (losses[1] - losses[0]) / (2 * step) == pytest.approx(along, abs=2e-3)


def test_the_pure_step_is_the_trainers_step():
    model, batches = network("live"), data(3)
    params = [tf.constant(v.numpy()) for v in model.trainable_variables]
    stats = [tf.constant(v.numpy()) for v in model.non_trainable_variables]
    momenta = [tf.zeros_like(p) for p in params]
    step = pure_step(pure_gradients(model, read, labels_only, 5e-4))
    losses = []
    for i, batch in enumerate(batches):
        params, momenta, stats, metrics = step(params, momenta, stats, batch, tf.constant([1, i]), 0.05)
        losses.append(float(metrics[0]))
    trainer = trainer_of(model, weight_decay=5e-4)
    assert [loss for loss, _, _ in train(trainer, batches)] == pytest.approx(losses, abs=1e-6)
    for variable, value in zip(model.trainable_variables, params, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)
    for variable, value in zip(model.non_trainable_variables, stats, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, atol=1e-6)


def test_several_steps_in_a_call_are_the_same_steps(monkeypatch):
    batches = data(5)
    one, many = trainer_of(network("live")), trainer_of(network("live"))
    losses = [loss for loss, _, _ in train(one, batches)]
    monkeypatch.setattr("secateur.compute.trainer.steps_per_call", lambda: 3)
    found = train(many, batches)
    assert [steps for _, _, steps in found] == [3, 2]
    assert [loss for loss, _, _ in found] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:])], abs=1e-6
    )
    assert difference(one.state(), many.state()) == 0


def test_a_restored_trainer_goes_on_bit_for_bit():
    batches = data(4)
    whole, first, second = (trainer_of(network("live"), weight_decay=5e-4) for _ in range(3))
    train(whole, batches)
    train(first, batches[:2])
    train(second, data(1, seed=9), rate=3.0)
    second.restore(first.state())
    train(second, batches[2:], first=2)
    assert difference(whole.state(), second.state()) == 0


# --- what goes wrong ---------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_an_error_of_its_own():
    trainer = trainer_of(network("live"), weight_decay=1.0)
    with pytest.raises(TrainingError, match="Received: loss=.* at learning rate") as caught:
        train(trainer, data(30), rate=1e9)
    assert caught.value.exit_code == 6


def test_what_one_replica_finds_not_finite_both_skip(divided):
    names = [name.removeprefix("1/skipped/") for name in divided if name.startswith("1/skipped/")]
    assert len(names) > 9
    for name in names:
        one, two = (divided[f"{replicas}/skipped/{name}"] for replicas in (1, 2))
        assert np.isfinite(two).all()
        np.testing.assert_allclose(one, two, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "torch_nesterov"])
@pytest.mark.parametrize("spoilt", ["loss", "gradient"])
def test_a_step_that_is_not_finite_is_skipped_without_a_trace(spoilt, optimizer, monkeypatch):
    """Weights, slots, averages and Adam's count are those of the other steps alone; one trace for all."""
    monkeypatch.setattr("secateur.compute.trainer.steps_per_call", lambda: 2)

    def objective(logits, batch):
        loss, accuracy = labels_only(logits, batch)
        bad = tf.reduce_any(batch["bad"])
        if spoilt == "loss":
            return tf.where(bad, np.inf, loss), accuracy
        at_zero = tf.where(bad, 0.0, 1.0) * tf.reduce_sum(tf.square(logits))  # √ has no slope there
        return loss + 1e-3 * tf.sqrt(at_zero), accuracy

    batches = [
        batch | {"bad": np.full(len(batch["labels"]), i in (1, 2, 4))} for i, batch in enumerate(data(6))
    ]
    options = {"optimizer": optimizer, "weight_decay": 5e-4, "compile_": False, "accum": 2}
    found = {}
    for name, chosen in (("skipped", range(6)), ("without", (0, 3, 5))):
        trainer = Trainer(network("live"), read, objective, skip=3, **options)
        rows = trainer.train([batches[i] for i in chosen], [(1, i) for i in chosen], [0.05] * len(chosen))
        losses = sum(loss * steps for loss, _, steps in rows)
        found[name] = trainer.state(), trainer.skipped, losses, trainer._run.experimental_get_tracing_count()
    assert difference(found["skipped"][0], found["without"][0]) == 0
    assert (found["skipped"][1], found["without"][1]) == (3, 0)
    assert found["skipped"][2] == pytest.approx(found["without"][2])
    assert found["skipped"][3] == 1


def test_too_many_skipped_steps_in_a_row_end_it_with_sound_weights():
    def objective(logits, batch):
        loss, accuracy = labels_only(logits, batch)
        return loss * tf.reduce_mean(batch["factor"]), accuracy

    trainer = Trainer(network("frozen"), read, objective, skip=3)
    before = trainer.state()
    factors = [1, np.nan, np.inf, np.nan]
    batches = [
        b | {"factor": np.full(len(b["labels"]), f, "f4")} for b, f in zip(data(4), factors, strict=True)
    ]
    with pytest.raises(TrainingError, match="in 3 steps in a row, the last is 4. Received: loss=nan"):
        train(trainer, batches)
    assert trainer.skipped == 3 and 0 < difference(trainer.state(), before) < np.inf


def test_weights_that_are_not_finite_are_never_handed_out():
    """The loss of a step is measured before its update: it says nothing of the weights afterwards."""
    trainer = trainer_of(network("live"))
    ((loss, _, _),) = train(trainer, data(1), rate=float("inf"))
    assert np.isfinite(loss)
    with pytest.raises(TrainingError):
        trainer.state()


# --- evaluation --------------------------------------------------------------------------------------------


@pytest.fixture
def worn() -> keras.Model:
    """A network whose averages are not those of its data."""
    model = network("live")
    model.get_layer("bn").moving_mean.assign(np.linspace(-2, 2, 6))
    return model


def logits_by_hand(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Float64, with the statistics of these images."""
    x = images.astype(np.float32) / 128 - 1
    maps = tf.nn.conv2d(x, model.get_layer("conv").kernel.value, 1, "SAME").numpy().astype(np.float64)
    maps = (maps - maps.mean((0, 1, 2))) / np.sqrt(maps.var((0, 1, 2)) + 1e-5)
    dense = model.get_layer("fc")
    return np.maximum(maps, 0).mean((1, 2)) @ dense.kernel.numpy() + dense.bias.numpy()


@pytest.mark.parametrize("compiled", [False, True])
def test_batch_statistics_are_those_of_each_batch_and_leave_no_trace(worn, compiled):
    (batch,) = data(1, 21)
    images, before = batch["images"], worn.get_layer("bn").moving_mean.numpy()
    found = make_forward(worn, scaled, batch_statistics=True, compile_=compiled)(images, 8)
    # The last batch of five is filled with the three images before it.
    parts = logits_by_hand(worn, images[:8]), logits_by_hand(worn, images[8:16])
    last = logits_by_hand(worn, images[13:])[3:]
    np.testing.assert_allclose(found, np.concatenate([*parts, last]), atol=2e-5)
    np.testing.assert_array_equal(worn.get_layer("bn").moving_mean.numpy(), before)


def test_moving_averages_do_not_depend_on_the_batches(worn):
    images = data(1, 21)[0]["images"]
    forward = make_forward(worn, scaled)
    np.testing.assert_allclose(forward(images, 8), forward(images, 64), atol=1e-6)
    assert np.abs(forward(images, 8) - logits_by_hand(worn, images)).max() > 0.05


@pytest.mark.parametrize("spoilt", [0.0, 1e7])
def test_reestimated_averages_are_the_mean_of_the_batches_whatever_they_were(spoilt):
    model = network("live")
    norm = model.get_layer("bn")
    norm.moving_mean.assign(np.full(6, spoilt))
    norm.moving_variance.assign(np.full(6, spoilt + 1))
    images = data(1, 26)[0]["images"]  # three batches of 8; two images are left out
    reestimate(model, scaled, images, 8)
    kernel = model.get_layer("conv").kernel.value
    maps = (
        tf.nn.conv2d(images[:24].astype(np.float32) / 128 - 1, kernel, 1, "SAME").numpy().astype(np.float64)
    )
    parts, count = np.split(maps, 3), 8 * 8 * 8
    mean = np.mean([p.mean((0, 1, 2)) for p in parts], 0)
    variance = np.mean([p.var((0, 1, 2)) * count / (count - 1) for p in parts], 0)  # as TensorFlow: unbiased
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=1e-5)


def averages_of(norm: keras.layers.Layer) -> np.ndarray:
    return np.stack([norm.moving_mean.numpy(), norm.moving_variance.numpy()])


@pytest.mark.parametrize("held", ["frozen", "momentum 1"])
def test_reestimation_leaves_alone_what_does_not_move(held):
    norm = keras.layers.BatchNormalization(momentum=1.0 if held == "momentum 1" else 0.9)
    norm.trainable = held != "frozen"
    inputs = keras.Input((5,))
    model = keras.Model(inputs, norm(inputs))
    norm.moving_mean.assign(np.full(5, 3.0))
    before = averages_of(norm)
    images = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    assert not reestimate(model, lambda x: x, images, 8), "none moved"
    np.testing.assert_array_equal(averages_of(norm), before)


def test_reestimation_of_a_layer_that_is_called_twice_inside_another_model():
    """Both calls read the same numbers, so that the average is theirs and not twice that."""
    norm = keras.layers.BatchNormalization(momentum=0.9)
    inner_inputs = keras.Input((5,))
    inner = keras.Model(inner_inputs, norm(inner_inputs))
    inputs = keras.Input((5,))
    model = keras.Model(inputs, inner(inputs) + inner(keras.layers.Activation("linear")(inputs)))
    numbers = np.random.default_rng(1).normal(2, 3, size=(8, 5)).astype(np.float32)
    reestimate(model, lambda x: x, numbers, 8)
    expected = np.stack([numbers.mean(0), numbers.var(0)])
    np.testing.assert_allclose(averages_of(norm), expected, rtol=1e-5)


def test_a_frozen_layer_reads_its_own_averages_while_those_behind_it_are_estimated():
    inputs = keras.Input((4,))
    still, live = (keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.9) for _ in range(2))
    model = keras.Model(inputs, live(still(inputs)))
    still.trainable = False
    still.moving_mean.assign([3.0] * 4)
    still.moving_variance.assign([4.0] * 4)
    images = np.random.default_rng(0).normal(3, 5, (64, 4)).astype("float32")
    assert reestimate(model, lambda x: x, images, 32)
    seen = (images - 3) / np.sqrt(4.001)
    np.testing.assert_allclose(live.moving_mean, seen.mean(0), atol=1e-5)
    halves = [half.var(0) for half in np.split(seen, 2)]
    np.testing.assert_allclose(live.moving_variance, np.mean(halves, 0), rtol=1e-4)
    assert set(still.moving_mean.numpy()) == {3.0} and set(still.moving_variance.numpy()) == {4.0}


def test_reestimation_mends_a_network_with_spoilt_averages():
    model, batches = network("live"), data(40, 32, seed=5)
    for batch in batches:  # class 0, 1, 2: this colour is bright; 3: none
        batch["images"] //= 2
        for colour in range(3):
            batch["images"][batch["labels"] == colour, :, :, colour] += 128
    train(trainer_of(model), batches, rate=0.1)
    images, labels = batches[0]["images"], batches[0]["labels"]
    norm = model.get_layer("bn")

    def loss() -> float:
        logits = make_forward(model, scaled)(images, 32)
        return float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))

    sound = loss()
    norm.moving_mean.assign(norm.moving_mean.numpy() + 5)
    assert loss() > sound + 0.5
    assert reestimate(model, scaled, images, 32), "there are averages"
    assert loss() < sound + 0.05


def test_a_network_without_batch_norm_needs_no_reestimation():
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(inputs)))
    before = [w.copy() for w in model.get_weights()]
    assert not reestimate(model, scaled, data(1)[0]["images"], 8), "no averages moved"
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert not any(isinstance(layer, FusedBatchNorm) for layer in model.layers)
