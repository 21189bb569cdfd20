"""Files made worse: changes at random, and what an attacker would write."""

from __future__ import annotations

import io
import json
import re
import zipfile

import numpy as np

VALUES = (
    *("-1", "0", "1e999", "9" * 400, "true", "null", '""', '"../../evil"', "[]", "{}", "[[[[1]]]]", "1.5"),
    *('"\\u0000"', "1979-05-27", '"__import__"', "1_000_000_000_000", "'", '"', "nan", "-inf"),
)
FOREIGN = {"module": "os", "class_name": "system", "config": "touch evil", "registered_name": "system"}

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
    """A part of a zip file changed inside, with right sums; every fourth time, or elsewhere, any bytes."""
    if rng.integers(4) == 0:
        return any_bytes(data, rng)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            parts = {name: old.read(name) for name in old.namelist()}
    except Exception:  # whatever a mutation before this one has made of it
        parts = {}
    if not parts:
        return any_bytes(data, rng)
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
