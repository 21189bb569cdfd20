"""`python -m coding encode --keep_bytes R` or `--max_loss X`: bits for each convolution, within a budget."""

from __future__ import annotations

import sys

import keras
import numpy as np
from tqdm import tqdm

from secateur.coding.sharing.allocation import calls_of_loss, choose_bits, shared_for_now
from secateur.nets.task import Task
from secateur.recipes.commands.images import load_images
from secateur.recipes.commands.options import EncodeOptions
from secateur.recipes.commands.training import forward_of, warn_at_chance
from secateur.runs import warn
from secateur.runs.text import table

MEASURED = 2000  # images behind a choice: the model is shown them seven times for each convolution


def choose(model: keras.Model, options: EncodeOptions) -> dict[str, int]:
    """Kernel → bits; it prints them and what they cost together, which the choice only estimates.

    Raises what reading the images and the budget may raise.
    """
    data = load_images(options, model)
    images, labels = data.some_held(MEASURED)
    task, forward = Task.of(model), forward_of(model)

    def measured() -> tuple[float, float]:
        found = forward(images, options.batch_size)
        return float(np.mean(task.losses(labels, found))), task.score(labels, found)

    with tqdm(total=calls_of_loss(model, options.layers), desc="bits", unit="score", file=sys.stderr) as bar:

        def loss() -> float:
            bar.update()
            return measured()[0]

        bits = choose_bits(model, loss, options.keep_bytes, options.max_loss, options.layers)
    print(table(("kernel", "bits"), [(name, str(own)) for name, own in bits.items()]))
    before = measured()
    warn_at_chance(before[1], data.classes)
    with shared_for_now(model, bits, options.layers):
        after = measured()
    print(f"on {len(labels)} images held out: {_text(before)} → {_text(after)}")
    if options.max_loss is not None and after[0] - before[0] > options.max_loss:
        warn(f"together they add {after[0] - before[0]:.4f} to the loss: lower --max_loss")
    return bits


def _text(found: tuple[float, float]) -> str:
    return f"loss {found[0]:.4f}, {100 * found[1]:.2f} % right"
