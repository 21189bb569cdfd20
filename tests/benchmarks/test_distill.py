"""What the benchmarks of distillation compare: equal targets, and runs that are told apart."""

from argparse import Namespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import distill_accuracy, distill_step
from benchmarks.common import MEAN, STD
from secateur.dataloader.augment import normalise
from secateur.distillation import Ensemble, Live


def test_the_bank_holds_what_the_live_teachers_say(tmp_path):
    models = []
    for seed in range(3):
        keras.utils.set_random_seed(seed)
        layers = [keras.Input(distill_step.SHAPE), keras.layers.Flatten()]
        models.append(keras.Sequential([*layers, keras.layers.Dense(distill_step.CLASSES)]))
    bank = distill_step.stored(models, tmp_path / "bank.npy")
    images = normalise(tf.constant(distill_step.batch()["images"]), MEAN, STD)
    live = Ensemble([Live(model) for model in models])({"images": images})["logits"]
    np.testing.assert_allclose(bank(np.arange(distill_step.BATCH)), live, atol=1e-4)
    assert np.ptp(live, -1).min() > 0


OPTIONS = dict(dataset="DIGITS", data_path=None, teacher="a.pkl", teacher_arch="ResNet-56")


def plans(teachers=("b.pkl",), epochs=2, pruned_epochs=1):
    return distill_accuracy.commands(
        Namespace(**OPTIONS, teachers=list(teachers), epochs=epochs, pruned_epochs=pruned_epochs)
    )


def folders(**options) -> list[str]:
    return [
        distill_accuracy.folder_name(title, name, 1, words)
        for title, methods in plans(**options).items()
        for name, words in methods.items()
    ]


def test_every_run_has_a_folder_of_its_own_and_other_epochs_have_others():
    found = [folders(epochs=epochs, pruned_epochs=epochs + 1) for epochs in (2, 20)]
    assert len({name for names in found for name in names}) == 2 * len(found[0])
    assert found[0][0] == "resnet_20_from_random_weights-cross_entropy-1-2ep"
    assert found[1][-1] == "resnet_56__60___of_the_channels_kept-nggm___hap-1-21ep"


@pytest.mark.parametrize("teachers", [(), ("b.pkl",)])
def test_all_learn_from_one_teacher_but_the_ensemble(teachers):
    scratch = next(iter(plans(teachers).values()))
    after = {name: words[words.index("--teacher") + 1 :] for name, words in scratch.items()}
    assert after.pop("ensemble", []) == (["a.pkl", "b.pkl"] if teachers else [])
    assert all(words == ["a.pkl"] for words in after.values())
