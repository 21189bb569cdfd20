# %% [markdown]
# # Secateur: a smaller Keras model, with its accuracy back
#
# Runs from top to bottom in a few minutes, on a CPU too. `colab.py` is its text, and `colab.ipynb` is made of
# that: `python -m tests.helpers.notebook`.

# %% [markdown]
# ## Install
#
# Bring the checkout here first, by `git clone` or an upload; `CHECKOUT` is its folder. Where `secateur` can
# be imported already, nothing is installed.

# %%
import importlib.util
import subprocess
import sys

CHECKOUT = "Secateur"
if importlib.util.find_spec("secateur") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", CHECKOUT], check=True)

# %% [markdown]
# ## A GPU or a TPU, if there is one
#
# Menu *Runtime*, *Change runtime type*. Programs find the first GPU by themselves; a TPU has to be named.

# %%
import os
import shutil

TPU = os.environ.get("TPU_NAME") or ("local" if "COLAB_TPU_1VM" in os.environ else None)
GPU = shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0
DEVICE = ["--tpu", TPU] if TPU else ["--gpu_id", "0"] if GPU else []
print("runs on", "a TPU" if TPU else "a GPU" if GPU else "the CPU")

# %% [markdown]
# ## Demo: EKG on handwritten digits
#
# A ResNet is trained, a search leaves 60 % of its operations, and networks met on the way teach the rest. The
# same command continues a run that was stopped.

# %%
from pathlib import Path

DEMO = Path("demo")
options = "--arch ResNet-8 --dataset DIGITS --baseline_epoch 30 --train_epoch 12 --batch_size 32"
options = ["--recipe", "ekg", "--target_rate", "0.6", *options.split(), "--train_path", DEMO]
subprocess.run([sys.executable, "-m", "secateur", "train", *options, *DEVICE], check=True)

# %% [markdown]
# What it wrote: networks, `report.html` (open it from the file browser), and its numbers.

# %%
import json

for row in json.loads((DEMO / "report.json").read_text())["rows"]:
    print(
        f"{row['name']:10}{row['macs']:12,} MACs  {100 * row['test_accuracy']:.1f} % of the test images right"
    )

# %% [markdown]
# ## A model of your own
#
# Any functional or Sequential Keras model; this one tells digits apart. Yours takes the place of `model`.

# %%
import keras
import numpy as np

from secateur import dataloader

digits = dataloader.load("DIGITS")
keras.utils.set_random_seed(1)
x = inputs = keras.Input((32, 32, 3))
x = keras.layers.AveragePooling2D(4)(keras.layers.Rescaling(1 / 255)(x))
for width in (32, 64):
    x = keras.layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.MaxPooling2D(2)(x)
x = keras.layers.Dense(10, activation="softmax")(keras.layers.Flatten()(x))
model = keras.Model(inputs, x)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(digits.train.images, digits.train.labels, batch_size=64, epochs=8, verbose=0)

# %% [markdown]
# Its groups of channels, then half of its operations, then its accuracy back.

# %%
from secateur import pruning

print(pruning.summary(model))
plan = pruning.make_plan(model, criterion="l1", keep_macs=0.5)
small = pruning.compact(model, plan)
small.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
small.fit(digits.train.images, digits.train.labels, batch_size=64, epochs=4, verbose=0)
small.save("small.keras")

# %%
accuracy = {
    name: np.mean(net.predict(digits.test.images, verbose=0).argmax(1) == digits.test.labels)
    for name, net in {"before": model, "after": keras.models.load_model("small.keras")}.items()
}
macs = {"before": pruning.complexity(model).macs, "after": pruning.complexity(small).macs}
for name in accuracy:
    print(f"{name:8}{macs[name]:10,} MACs  {100 * accuracy[name]:.1f} % of the test images right")
