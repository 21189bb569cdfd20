"""Mutated and crafted files of every kind that is read: they load or are refused, and nothing else happens.

This file is run as a program of its own, in a process that was forked: `hostile.py KIND COUNT SEED`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secateur.runs import SecateurError, Snapshot, load_snapshot, read_json, save_snapshot
from tests.chaos.bench import Bench
from tests.chaos.child import is_change

SECONDS = 20  # of processor time that a file may take
MEGABYTES = 600  # by which the process may grow over all files of a kind
RUNS = (
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty"),
    *("pty.spawn", "socket.connect", "socket.bind", "ctypes.dlopen"),
)
"""Events of auditing that no file may cause."""
VALUES = (
    *("-1", "0", "1e999", "9" * 400, "true", "null", '""', '"../../evil"', "[]", "{}", "[[[[1]]]]", "1.5"),
    *('"\\u0000"', "1979-05-27", '"__import__"', "1_000_000_000_000", "'", '"', "nan", "-inf"),
)
FOREIGN = {"module": "os", "class_name": "system", "config": "touch evil", "registered_name": "system"}

Mutate = Callable[[bytes, np.random.Generator], bytes]


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        suffix: of its name.
        make: a path → writes a sound file there.
        read: reads such a file as a program would.
        mutate: changes its bytes at random.
        crafted: the sound bytes → worse ones.
        every: of so many mutations one is tried: some files take long to read.
    """

    suffix: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    mutate: Mutate
    crafted: Callable[[bytes], list[bytes]] = lambda data: []
    every: int = 1


# --- changes at random --------------------------------------------------------------------------------------


def any_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, parts cut out, put in, doubled, moved, or an end that is missing."""
    for _ in range(rng.integers(1, 5)):
        a, b = sorted(map(int, rng.integers(0, len(data) + 1, 2)))
        flipped = bytes(byte ^ 1 << int(rng.integers(8)) for byte in data[a : a + 1])
        changed = (
            data[:a] + flipped + data[a + 1 :],
            data[:a],
            data[:a] + rng.bytes(int(rng.integers(1, 9))) + data[a:],
            data[:a] + data[b:],
            data[:b] + data[a:],
            data[b:] + data[:b],
        )
        data = changed[rng.integers(len(changed))]
    return data


def any_value(data: bytes, rng: np.random.Generator) -> bytes:
    """Text with up to three of its values replaced; every fourth time any bytes."""
    if rng.integers(4) == 0:
        return any_bytes(data, rng)
    text = data.decode(errors="surrogateescape")
    for _ in range(rng.integers(1, 4)):
        found = list(re.finditer(r'"[^"\n]*"|-?[\w.]+', text))
        if found:
            one = found[rng.integers(len(found))]
            text = text[: one.start()] + VALUES[rng.integers(len(VALUES))] + text[one.end() :]
    return text.encode(errors="surrogateescape")


def in_archive(data: bytes, rng: np.random.Generator) -> bytes:
    """A part of a zip file changed inside, so that sums are right; every fourth time any bytes."""
    if rng.integers(4) == 0:
        return any_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    name = list(parts)[rng.integers(len(parts))]
    parts[name] = (any_value if name.endswith(".json") else any_bytes)(parts[name], rng)
    return archive(parts)


def archive(parts: dict[str, bytes]) -> bytes:
    """A zip file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new:
        for name, part in parts.items():
            new.writestr(name, part)
    return out.getvalue()


# --- crafted ------------------------------------------------------------------------------------------------


def worse_keras(data: bytes) -> list[bytes]:
    """Code in a layer, foreign classes, paths that lead outside, a bomb, a configuration of 100 MB."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    config = json.loads(parts["config.json"])

    changed = json.loads(parts["config.json"])
    changed["config"]["layers"][1] |= FOREIGN
    return [
        archive(_with_code()),
        archive(parts | {"config.json": json.dumps(changed).encode()}),
        archive(parts | {"config.json": json.dumps(FOREIGN).encode()}),
        archive(parts | {"config.json": json.dumps(config | {"build_config": FOREIGN}).encode()}),
        archive(parts | {"config.json": json.dumps(config | {"compile_config": {"loss": FOREIGN}}).encode()}),
        archive(parts | {"../../evil": b"evil", "/tmp/evil": b"evil", "assets/../../evil": b"evil"}),
        archive(parts | {"config.json": json.dumps(config).encode() + b" " * 100_000_000}),
        archive(parts | {"config.json": b"[" + b"0," * 50_000_000 + b"0]"}),
        archive(parts | {"model.weights.h5": bytes(400_000_000)}),
        archive({"config.json": parts["config.json"]}),
    ]


def _with_code() -> dict[str, bytes]:
    """A model whose Lambda makes a file outside as soon as it is built or called."""
    import keras

    inputs = keras.Input((8, 8, 3))
    out = keras.layers.Lambda(lambda x: (open("/tmp/evil", "w"), x)[1], output_shape=(8, 8, 3))(inputs)
    keras.Model(inputs, out).save("code.keras")
    with zipfile.ZipFile("code.keras") as parts:
        return {name: parts.read(name) for name in parts.namelist()}


def worse_images(data: bytes) -> list[bytes]:
    """Headers that promise 10⁹ pixels, and pixels that are there and do not fit."""
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def png(width: int, height: int, rows: bytes) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)

    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b"," + bytes(9) + b";"
    return [png(2**30, 2**30, b""), png(65535, 65535, bytes(10**7)), png(0, 0, b""), bmp, gif, b"<svg/>"]


# --- the kinds ----------------------------------------------------------------------------------------------

ARRAYS = {"conv/kernel:0": np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4), "fc/biases:0": np.zeros(2, "f4")}


def _pickle(protocol: int) -> Kind:
    def make(path: Path) -> None:
        path.write_bytes(pickle.dumps(ARRAYS, protocol))

    return Kind(".pkl", make, load_snapshot, any_bytes)


def _snapshot(path: Path) -> None:
    save_snapshot(path, Snapshot(ARRAYS, {}, None, {}))


def _plan(path: Path) -> None:
    path.write_text(json.dumps({"keep": {"a": [0, 2], "b": [1]}, "sizes": {"a": 3, "b": 2}}))


def _model() -> Any:
    import keras

    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, "softmax", name="head")(x))


def _read_model(path: Path) -> Any:
    import keras

    from secateur.recipes.engine.subject import load_model

    keras.backend.clear_session()
    return load_model(str(path))


def _decode(path: Path) -> Any:
    import keras

    from secateur import coding

    keras.backend.clear_session()
    return coding.decode(path)


def _encode(path: Path) -> None:
    from secateur import coding

    coding.encode(_model(), path)


def _read_recipe(path: Path) -> Any:
    from secateur.recipes.engine.config import RunOptions
    from secateur.recipes.engine.run import program_of

    return program_of(RunOptions(recipe=str(path), train_path="run"))


def _read_plan(path: Path) -> Any:
    from secateur.pruning import Plan

    return Plan.from_json(read_json(path))


def _recipe(path: Path) -> None:
    published = Path(__file__).resolve().parents[2] / "recipes" / "published"
    path.write_text((published / "ekg.toml").read_text())


def _image(form: str) -> Kind:
    def make(path: Path) -> None:
        import tensorflow as tf

        pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), np.uint8)
        written = {"png": tf.io.encode_png, "jpg": tf.io.encode_jpeg}[form](pixels).numpy()
        path.write_bytes(written)

    return Kind(f".{form}", make, _read_image, any_bytes, worse_images, every=20)


def _read_image(path: Path) -> Any:
    from secateur.dataloader.sources.decoding import decode_files

    return decode_files([path], (8, 8, 3))


def _safetensors(path: Path) -> None:
    from safetensors.numpy import save

    path.write_bytes(save(ARRAYS))


KINDS: dict[str, Kind] = {
    **{f"pickle, protocol {protocol}": _pickle(protocol) for protocol in range(6)},
    "snapshot": Kind(".pkl", _snapshot, load_snapshot, any_bytes),
    "safetensors": Kind(".safetensors", _safetensors, load_snapshot, any_bytes),
    "plan": Kind(".json", _plan, _read_plan, any_value),
    "recipe": Kind(".toml", _recipe, _read_recipe, any_value, every=4),
    "png": _image("png"),
    "jpg": _image("jpg"),
    "kpz": Kind(".kpz", _encode, _decode, any_bytes, every=4),
    "keras": Kind(".keras", lambda path: _model().save(path), _read_model, in_archive, worse_keras, every=10),
    "h5": Kind(".h5", lambda path: _model().save(path), _read_model, any_bytes, every=10),
}


# --- trying -------------------------------------------------------------------------------------------------


def attack(bench: Bench, kind: str, count: int) -> Iterator[str]:
    """Reads mutations of a kind of file, and what is crafted, in a process of their own; what broke, each."""
    work = bench.root / "files"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "temporary").mkdir()
    environment = {"TMPDIR": str(work / "temporary"), "HOME": str(work)}
    done = bench.programs.run(
        __file__, kind, count, bench.rng.randrange(2**31), cwd=work, environment=environment
    )
    ends = [json.loads(line) for line in (work / "ends.jsonl").read_text().splitlines()]
    yield from ends
    if done.code:
        yield f"the process ended with {done.code}: {done.err[-300:]}"


def main() -> None:
    """Writes a line for each try."""
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tempfile.tempdir = os.environ["TMPDIR"]
    kind, rng = KINDS[name], np.random.default_rng(seed)
    sound = Path(f"sound{kind.suffix}").absolute()
    kind.make(sound)
    data, path = sound.read_bytes(), Path(f"evil{kind.suffix}").absolute()
    with contextlib.suppress(SecateurError):  # of the oldest protocols, which are refused
        kind.read(sound)
    happened = _watched(Path.cwd())
    signal.signal(signal.SIGPROF, _too_long)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tried = [*kind.crafted(data), *(kind.mutate(data, rng) for _ in range(max(1, count // kind.every)))]
    with open("ends.jsonl", "w") as ends:
        for number, changed in enumerate(tried):
            path.write_bytes(changed)
            happened.clear()
            end = _end(kind, path) or ", ".join(happened)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
            if grown > MEGABYTES:
                end, before = end or f"grew by {grown} MB", before + 1024 * grown
            if end:
                shutil.copy(path, f"broken{number}{kind.suffix}")
            ends.write(json.dumps(end and f"{number}: {end}") + "\n")
            ends.flush()


def _end(kind: Kind, path: Path) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        kind.read(path)
    except SecateurError as error:
        return "" if len(str(error).splitlines()) <= 2 else f"{len(str(error).splitlines())} lines"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return ""


def _too_long(number: int, frame: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def _watched(folder: Path) -> list[str]:
    """Becomes a list of what files cause that none may: programs, connections, changes outside the folder."""
    happened: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if event in RUNS:
            happened.append(f"{event} {str(arguments)[:100]}")
        elif is_change(event, arguments) and not isinstance(arguments[0], int):
            place = os.path.abspath(os.fsdecode(arguments[0]))
            if not place.startswith((f"{folder}{os.sep}", os.devnull)):
                happened.append(f"{event} {place}")

    sys.addaudithook(hook)
    return happened


if __name__ == "__main__":
    main()
