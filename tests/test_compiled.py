"""Every function that the product compiles: XLA compiles it, too, and it computes the same numbers.

`tf.function` is watched while small networks go through the public functions. What it was given, and what
that was called with, is compiled anew with and without XLA, all shapes fixed, as TPUs need them.
"""

import ast
import contextlib
import functools
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.dataloader import Facts, Images, given_splits
from secateur.dataloader.pipelines import Pipeline
from secateur.distillation import labels_only
from secateur.exports.frozen import frozen_runner
from secateur.nets.graph import trace
from secateur.nets.task import Task
from secateur.op_utils import Trainer, make_forward, reestimate_batch_norm
from secateur.pruning.constrain.holding import Holder
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.landscape import LossAt
from secateur.pruning.layers.convolving import conv
from secateur.pruning.layers.profiling import profiled
from secateur.pruning.plan import Plan
from secateur.pruning.score.curvature import hessian_diagonal, squared_gradients
from secateur.pruning.score.gated import Gated
from secateur.pruning.search.chain import Chain
from secateur.pruning.shrink.weights import weights_of
from secateur.recipes.engine import reading
from secateur.recipes.engine.subject import Subject
from tests.helpers.replicated_training import data, network, read, scaled
from tests.test_architecture import REPO, sources

ON_HOSTS = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "Print", "PrintV2", "HostSend", "Send", "_Send"}
real = tf.function


def functional():
    """Keras' own layers, as models of one's own have them."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="bn")(x))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3, name="next")(x))
    return keras.Model(inputs, keras.layers.Dense(4, name="fc")(x))


def images():
    """Eight, as networks read them, and labels."""
    (batch,) = data(1, 8)
    return np.float32(scaled(batch["images"])), batch["labels"]


def trained():
    batches = data(2)
    list(Trainer(network("live"), read, labels_only).train(batches, [(1, 0), (1, 1)], [0.1, 0.1]))


def evaluated():
    model = network("live")
    make_forward(model, scaled)(data(1)[0]["images"])
    make_forward(model, scaled, batch_statistics=True)(data(1)[0]["images"])


def held():
    model = functional()
    groups = analyse(model).groups
    plan = Plan.from_masks({group.name: np.arange(group.size) % 2 == 0 for group in groups})
    Holder(model, plan)()


def chained():
    model = functional()
    analysis, (x, labels) = analyse(model), images()
    chain, weights = Chain(model, analysis), weights_of(model)
    tensors, inputs = chain.tensors(weights), chain.inputs(x)
    chain.score(tensors, inputs, tf.constant(labels), chain.forward(tensors, inputs))


def curved():
    model, rows = functional(), images()
    rows = tuple(map(tf.constant, rows))

    def loss(x, labels):
        return tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, model(x), True))

    weights = [v.value for v in model.trainable_variables]
    squared_gradients(loss, weights, [rows])
    hessian_diagonal(loss, weights, [[(8, rows)]], lambda shape: np.ones(shape, np.float32), 1)


def landscape():
    model = functional()
    loss = LossAt(model, images(), Task.of(model), batch_size=8)
    loss(loss.weights)
    loss.hessian_times(np.concatenate([w.ravel() for w in loss.weights]))


def gated():
    analysis = analyse(functional())
    Gated(analysis)(images()[0], {group.name: np.ones(group.size, bool) for group in analysis.groups})


def own_pixels():
    batch = data(1, 64)[0]
    facts = Facts("folder", 4, (8, 8, 3), (0.0,) * 3, (1.0,) * 3)
    train = Images(batch["images"], batch["labels"], np.arange(64))
    model = functional()
    reading._accuracies(
        Subject.own(model), given_splits(train, train, None, facts), {"rgb": facts}, Pipeline("rgb")
    )


def grouped():
    inputs = keras.Input((4, 4, 4, 4))
    model = keras.Model(inputs, keras.layers.Conv3D(8, 3, groups=4)(inputs))
    call = next(call for call in trace(model).calls if call.kind == "Conv3D")
    weights = {name: tf.constant(array) for name, array in weights_of(model)[call.name].items()}
    conv(call, weights, tf.random.stateless_normal((2, 4, 4, 4, 4), (1, 2)))


# Function in which `tf.function` stands → what calls it.
USES = {
    "compute/trainer.py:Trainer.__init__": trained,
    "compute/evaluation.py:make_forward": evaluated,
    "compute/batch_norm.py:make_reestimator": lambda: reestimate_batch_norm(
        network("live"), scaled, data(1)[0]["images"], 8
    ),
    "recipes/engine/reading.py:_accuracies": own_pixels,
    "pruning/constrain/holding.py:Holder.hold_to": held,
    "pruning/search/chain.py:Chain.__init__": chained,
    "pruning/search/chain.py:Chain._compiled": chained,
    "pruning/layers/convolving.py:_in_groups": grouped,
    "pruning/layers/profiling.py:macs_of": lambda: profiled(functional()),
    "pruning/landscape/loss_at.py:LossAt.__init__": landscape,
    "pruning/score/curvature.py:squared_gradients": curved,
    "pruning/score/curvature.py:hessian_diagonal": curved,
    "pruning/score/gated.py:Gated.__init__": gated,
    "exports/frozen.py:freeze": lambda: frozen_runner(functional(), 8)(images()[0]),
}


def by_groups(kernel, x):
    """What the processor computes under XLA alone, from what it has kernels for."""
    groups = kernel.shape[-1] // 2
    parts = zip(tf.split(kernel, groups, -1), tf.split(x, groups, -1), strict=True)
    return tf.concat([tf.nn.convolution(x, kernel, 1, "VALID") for kernel, x in parts], -1)


UNKNOWN_WITHOUT = {"pruning/layers/convolving.py:_in_groups": by_groups}
TWICE = {"compute/trainer.py:Trainer.__init__": 2, "pruning/landscape/loss_at.py:LossAt.__init__": 2}


def places():
    """Where the product's sources say tf.function, once for each time."""
    found = []
    for _, path in sources():
        name = path.relative_to(REPO).as_posix()

        def visit(node, inside, name=name):
            for child in ast.iter_child_nodes(node):
                scope = isinstance(child, ast.FunctionDef | ast.ClassDef)
                if isinstance(child, ast.Attribute) and ast.unparse(child) == "tf.function":
                    outer = inside[: 2 if inside and inside[0][0].isupper() else 1]
                    found.append(f"{name}:{'.'.join(outer)}")
                visit(child, [*inside, child.name] if scope else inside)

        visit(ast.parse(path.read_text()), [])
    return found


class Watched:
    """A compiled function that remembers what it computes, and what of."""

    def __init__(self, place, function, compiled):
        self.place, self.function, self.args, self._compiled = place, function, None, compiled

    def __call__(self, *args):
        self._remember(args)
        return self._compiled(*args)

    def get_concrete_function(self, *specs):
        self._remember(specs)
        return Traced(self, self._compiled.get_concrete_function(*specs))

    def _remember(self, args):
        if self.args is None or not known(self.args):
            self.args = args

    def __getattr__(self, name):
        return getattr(self._compiled, name)


class Traced:
    """One trace of a function that is watched."""

    def __init__(self, watched, concrete):
        self._watched, self._concrete = watched, concrete

    def __call__(self, *args):
        self._watched._remember(args)
        return self._concrete(*args)

    def __getattr__(self, name):
        return getattr(self._concrete, name)


def known(args):
    """Whether they have values, and not only shapes and types."""
    return all(hasattr(x, "numpy") or isinstance(x, np.ndarray) for x in keras.tree.flatten(args))


def values(args):
    """What has no value gets some: any real numbers, pixels, and else the whole number 0."""
    rng = np.random.default_rng(0)

    def value(x):
        if known(x):
            return x
        if x.dtype == "uint8":  # images of one colour have a variance of 0, by which BatchNorm divides
            return tf.constant(rng.integers(0, 256, x.shape), x.dtype)
        floating = tf.as_dtype(x.dtype).is_floating
        return tf.constant(rng.normal(size=x.shape) if floating else np.zeros(x.shape), x.dtype)

    return keras.tree.map_structure(value, args)


@contextlib.contextmanager
def watching():
    """A list of the product's functions that are compiled meanwhile."""
    found = []

    def function(func=None, **options):
        code = sys._getframe(1).f_code
        path = Path(code.co_filename)
        if not path.is_relative_to(REPO) or ".venv" in path.parts:  # Keras compiles some layers
            return real(func, **options)

        def watch(func):
            place = f"{path.relative_to(REPO).as_posix()}:{code.co_qualname.partition('.<locals>')[0]}"
            found.append(Watched(place, func, real(func, **options)))
            return found[-1]

        return watch if func is None else watch(func)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", function)
        yield found


def operations(concrete):
    """Types of all operations of a trace, those of functions that it calls included."""
    graph = concrete.graph.as_graph_def()
    bodies = [graph.node, *(function.node_def for function in graph.library.function)]
    return {node.op for body in bodies for node in body}


def check(watched):
    args = values(watched.args)
    plain = real(UNKNOWN_WITHOUT.get(watched.place, watched.function), autograph=False)
    concrete = plain.get_concrete_function(*args)
    assert not operations(concrete) & ON_HOSTS
    variables = concrete.variables
    before = [variable.numpy() for variable in variables]
    results = []
    for compiled in (plain, real(watched.function, jit_compile=True, autograph=False)):
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        outputs = keras.tree.flatten(compiled(*args))
        results.append([x.numpy() for x in [*outputs, *variables] if x is not None])
    for expected, found in zip(*results, strict=True):
        scale = max(1.0, float(np.abs(np.float64(expected)).max(initial=0)))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * scale, err_msg=watched.place)


def test_every_compiled_function_has_an_entry():
    assert Counter(places()) == Counter({place: TWICE.get(place, 1) for place in USES})


@functools.cache
def compiled_by(use):
    """What is compiled meanwhile, and was called."""
    with watching() as found:
        use()
    return [watched for watched in found if watched.args is not None]


@pytest.mark.parametrize("place", USES)
def test_xla_compiles_it_with_fixed_shapes_and_it_computes_the_same(place):
    own = [watched for watched in compiled_by(USES[place]) if watched.place == place]
    assert len(own) >= TWICE.get(place, 1)
    for watched in own:
        check(watched)


def test_metrics_alone_come_back_to_the_host_while_an_epoch_is_trained(monkeypatch):
    """Six steps in calls of two: three arrays, a row for each step, whatever else it computes."""
    monkeypatch.setattr("secateur.compute.trainer.steps_per_call", lambda: 2)
    trainer, batches, read_back = Trainer(network("live"), read, labels_only), data(6), []
    eager = type(tf.constant(0)).__mro__[1]
    steps = trainer.train(batches, [(1, i) for i in range(6)], [0.1] * 6)
    next(steps)  # traced
    for name in ("numpy", "__array__"):
        method = getattr(eager, name)

        def counted(self, *args, method=method, **options):
            read_back.append(tuple(self.shape))
            return method(self, *args, **options)

        monkeypatch.setattr(eager, name, counted)
    assert len(list(steps)) == 2
    assert read_back == [(2, 2), (2, 2)]
