"""What a command sets before TensorFlow is there: seen in what TensorFlow then computes with."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
CONVOLUTION = """
from secateur.runs.start import start_tensorflow
start_tensorflow()
import tensorflow as tf
print(tf.nn.conv2d(tf.ones([2, 8, 8, 8]), tf.ones([3, 3, 8, 8]), 1, "SAME").shape)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="oneDNN is for x86 here")
@pytest.mark.parametrize(("said", "onednn"), [(None, True), ("0", False)])
def test_convolutions_run_in_onednn_unless_the_environment_says_no(said, onednn, tmp_path):
    """oneDNN says what it runs, whatever the CPU has: without it TensorFlow would not ask it."""
    own = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    own |= {"ONEDNN_VERBOSE": "1", "PYTHONPATH": str(REPO)} | (
        {"TF_ENABLE_ONEDNN_OPTS": said} if said else {}
    )
    words = [sys.executable, "-c", CONVOLUTION]
    done = subprocess.run(words, cwd=tmp_path, env=own, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ("convolution" in done.stdout) is onednn, done.stdout[-2000:]
