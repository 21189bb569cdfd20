"""Networks by their shapes alone."""

from __future__ import annotations

import keras
import pytest

from secateur import nets
from secateur.pruning import complexity


@pytest.fixture
def counted():
    """Function (arch, **options) → (parameters, parameters but BN's, MACs, 2·h·w·c of all BN); no weights."""
    yield _counted
    keras.utils.clear_session()  # forgets the variables that were never given a value


def _counted(arch: str, **options) -> tuple[int, int, int, int]:
    with keras.StatelessScope(initialize_variables=False):
        model = nets.build(arch, **options)
    mac, ekg = complexity(model), complexity(model, "ekg")
    norms = sum(row.params for row in mac.layers if row.kind == "FusedBatchNorm")
    return mac.params, mac.params - norms, mac.macs, ekg.macs - mac.macs
