"""Pruning shears for Keras networks: `from secateur import pruning, nets, dataloader, distillation, coding`.

In an installed package the rooms lie inside this folder. In a checkout they lie beside it: there this package
takes them onto its own path, and `import pruning` gives the same module object as `secateur.pruning`.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from secateur import callbacks as callbacks
    from secateur.nets.functional import functional as functional
    from secateur.pruning.layers import register_layer as register_layer
    from secateur.recipes.engine.compress import Compressed as Compressed
    from secateur.recipes.engine.compress import compress as compress

__version__ = "0.1.0"
ROOMS = "coding compute dataloader distillation exports nets op_utils pruning recipes reports runs".split()
PUBLIC = {
    "register_layer": "pruning.layers",
    "functional": "nets.functional",
    "compress": "recipes.engine.compress",
    "Compressed": "recipes.engine.compress",
}


class _BareNames(Loader):
    """Finds `pruning.plan` as the module `secateur.pruning.plan`, so that no class exists twice."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Programs (`python -m pruning`) are found as files: they run under the name `__main__`."""
        if name.partition(".")[0] in ROOMS and not name.endswith(".__main__"):
            return spec_from_loader(name, self)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"{__name__}.{spec.name}")
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Its code has run; the import system has put its own spec in the module's place."""
        assert module.__spec__
        module.__spec__ = module.__spec__.loader_state


def _serve_bare_names(root: Path) -> None:
    """A room that is just being imported by its bare name is replaced, too."""
    __path__.append(str(root))
    sys.meta_path.insert(0, _BareNames())
    for room in ROOMS:
        if room in sys.modules:
            sys.modules[room] = importlib.import_module(f"{__name__}.{room}")


def __getattr__(name: str) -> object:
    """Public names of this package itself; rooms are modules."""
    if name == "callbacks":
        return importlib.import_module(f"{__name__}.callbacks")
    if name in PUBLIC:
        return getattr(importlib.import_module(f"{__name__}.{PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not (Path(__file__).parent / "pruning").is_dir():
    _serve_bare_names(Path(__file__).resolve().parents[1])
