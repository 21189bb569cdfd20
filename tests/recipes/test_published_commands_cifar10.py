"""Both published commands on 300 training images of the real CIFAR-10, prepared for tensorflow-datasets."""

from __future__ import annotations

import json
import re
import shlex
from itertools import islice

import pytest
import tensorflow as tf

from secateur.runs import read_json
from tests.helpers.forked import Done

NETWORK = "--gpu_id 0 --arch ResNet-56 --dataset CIFAR10"
PUBLISHED = (
    f"python train_cifar.py {NETWORK} --target_rate 0.45 --train_path ../test",
    f"python test.py {NETWORK} --trained_param ../test/trained_param.pkl",
)
SHORT = " --baseline_epoch 1 --train_epoch 1 --search_step 0.8 --time_seconds 0.1"
TRAIN_IMAGES, TEST_IMAGES = 300, 100


@pytest.fixture(scope="module")
def small_cifar10(data_dir, tmp_path_factory):
    """A data_dir whose cifar10 is the beginning of the real one."""
    if not (data_dir / "tfds" / "cifar10").is_dir():
        pytest.skip(f"no prepared cifar10 in {data_dir / 'tfds'}")
    (source,) = (data_dir / "tfds" / "cifar10").iterdir()
    root = tmp_path_factory.mktemp("tfds")
    target = root / "cifar10" / source.name
    target.mkdir(parents=True)
    (target / "features.json").write_text((source / "features.json").read_text())
    info = json.loads((source / "dataset_info.json").read_text())
    for split in info["splits"]:
        name, count = split["name"], {"train": TRAIN_IMAGES, "test": TEST_IMAGES}[split["name"]]
        first = min(source.glob(f"cifar10-{name}.tfrecord-*"))
        records = [r.numpy() for r in islice(tf.data.TFRecordDataset(str(first)), count)]
        split |= {"shardLengths": [str(count)], "numBytes": str(sum(map(len, records)))}
        with tf.io.TFRecordWriter(str(target / f"cifar10-{name}.tfrecord-00000-of-00001")) as writer:
            for record in records:
                writer.write(record)
    (target / "dataset_info.json").write_text(json.dumps(info))
    return root


@pytest.mark.slow
def test_they_run_one_after_the_other_in_tensorflow_datasets_own_folder(programs, small_cifar10, tmp_path):
    cwd = tmp_path / "Secateur"
    cwd.mkdir()

    def run(command: str) -> Done:
        _, program, *words = shlex.split(command)
        return programs.run(program, *words, cwd=cwd, environment={"TFDS_DATA_DIR": str(small_cifar10)})

    train = run(PUBLISHED[0] + SHORT)
    assert train.code == 0, train.err[-2000:]
    report = read_json(tmp_path / "test" / "report.json")
    dense, _, tuned = report["rows"]
    # EKG counts 2 operations per BN element as well: the two ratios differ by less than a percent.
    assert dense["params"] == 855_770 and tuned["macs"] / dense["macs"] == pytest.approx(0.45, abs=0.01)
    assert report["search"][-1]["rate"] <= 0.45 < report["search"][-2]["rate"]
    evaluated = run(PUBLISHED[1])
    assert evaluated.code == 0, evaluated.err[-2000:]
    found = re.search(r"accuracy (\S+) % on 100 test images", evaluated.out)
    assert float(found[1]) == pytest.approx(100 * tuned["test_accuracy"], abs=0.005)
