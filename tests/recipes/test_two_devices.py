"""A whole run on two devices of one process: what it decides and trains is that of one device."""

import numpy as np

from secateur.runs import load_snapshot, read_json, read_jsonl, sha256

EKG = (
    "--sync_bn --arch ResNet-8 --dataset DIGITS --target_rate 0.8 --batch_size 64 --train_images 640 "
    "--baseline_epoch 4 --train_epoch 1 --time_seconds 0.01 --train_path"
)


def test_from_a_dense_network_to_the_report_two_devices_do_what_one_does(programs, tmp_path):
    """EKG's search decides alike; weights, bank and accuracies differ by rounding."""
    one, two = tmp_path / "one", tmp_path / "two"
    dense = "--trained_param", one / "snap_baseline.pkl"
    for program, words in (("train_cifar.py", ("one",)), ("tests/helpers/two_devices.py", ("two", *dense))):
        done = programs.run(program, *EKG.split(), *words, cwd=tmp_path)
        assert done.code == 0, done.err[-2000:]
    assert read_json(one / "plan_ekg.json") == read_json(two / "plan_ekg.json")
    steps = [[(r["group"], r["width"]) for r in read_jsonl(run / "search.jsonl")] for run in (one, two)]
    assert steps[0] == steps[1] and len(steps[0]) > 3
    for name in ("snap_warm.pkl", "slimmed_param.pkl", "trained_param.pkl"):
        assert sha256(one / name) != sha256(two / name)  # other sums
        expected, found = (load_snapshot(run / name).arrays for run in (one, two))
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-4, err_msg=f"{name} {key}")
    np.testing.assert_allclose(np.load(two / "bank.npy"), np.load(one / "bank.npy"), atol=1e-3)
    for expected, found in zip(*(read_json(run / "report.json")["rows"] for run in (one, two)), strict=True):
        assert abs(expected["test_accuracy"] - found["test_accuracy"]) < 0.01
