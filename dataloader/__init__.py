"""Where images come from and how they are augmented.

`load` gives the `Splits` of a data set as uint8 arrays in memory, or in their files where they do not fit;
`batches` walks through them in an order that depends on the seed and the epoch only; `dataloader.augment`
(TensorFlow) normalises and augments a batch inside the compiled step. Importing this package imports neither
TensorFlow nor the data set's library.
"""

from secateur.dataloader.batches import Batch, balanced_order, batches, epoch_order
from secateur.dataloader.registry import DATASETS, Dataset, load
from secateur.dataloader.splits import Columns, Facts, Images, Splits, given_splits, parts_of, split_indices

__all__ = [
    "DATASETS",
    "Batch",
    "Columns",
    "Dataset",
    "Facts",
    "Images",
    "Splits",
    "balanced_order",
    "batches",
    "epoch_order",
    "load",
    "given_splits",
    "parts_of",
    "split_indices",
]
