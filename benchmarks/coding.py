"""Speed of the coders and size of their files: ResNet-56 with shared weights beside gzip and xz of its bytes.

    python -m benchmarks.coding                    5 bits, random weights
    python -m benchmarks.coding --model NET.keras  a network of yours, as it is and with 5 bits

MB/s count the bytes of the float32 weights, in both directions. "Model" is a Keras model from the file, whose
graph Keras builds; "arrays" are its weights without TensorFlow.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.common import packed, print_summary, print_table, save, summary, take_turns, timed
from secateur.runs import UsageError, cli
from secateur.runs.start import start_tensorflow

STREAM = 2_000_000  # symbols
MB = 1e6


def shared_net(bits: int):
    """ResNet-56 of plain layers, the weights of its convolutions at the nearest of 2**bits values."""
    import numpy as np

    from secateur import nets
    from secateur.pruning import compact

    model = compact(nets.build("ResNet-56"))
    for variable in model.weights:
        if len(variable.shape) == 4:
            weights = variable.numpy()
            values = np.quantile(weights, np.linspace(0.005, 0.995, 2**bits)).astype(np.float32)
            places = np.searchsorted((values[1:] + values[:-1]) / 2, weights)
            variable.assign(values[places])
    return model


def measure_streams(bits: int, turns: int) -> list[dict]:
    """MB/s and size of each coder on one long stream, as bytes of the float32 weights that it stands for."""
    import numpy as np

    from secateur.coding.entropy import ans, huffman, symbols

    levels = np.random.default_rng(1).normal(size=STREAM) * 2**bits / 6 + 2**bits / 2
    values = np.clip(levels, 0, 2**bits - 1).astype(np.int32)
    least = symbols.entropy(np.bincount(values)) / 8
    rows = []
    for name, coder in (("Huffman", huffman), ("ANS", ans)):
        data = coder.encode(values, 2**bits)
        calls = {
            "encode": lambda c=coder: timed(lambda: c.encode(values, 2**bits)),
            "decode": lambda c=coder, d=data: timed(lambda: [*c.decode(d, STREAM, 2**bits)]),
        }
        seconds = {row["name"]: row["median"] for row in summary(take_turns(calls, turns), "encode")}
        speeds = {key: 4 * STREAM / MB / value for key, value in seconds.items()}
        rows.append({"name": name, "over_entropy": len(data) / least - 1, **speeds})
    return rows


def sizes(model, path: Path, bits: int) -> list[dict]:
    """Bytes of the weights, of gzip and xz of them, and of the file, with shared weights and as they are."""
    from secateur import coding

    weights = b"".join(v.numpy().tobytes() for v in model.weights)
    found = {
        "float32": len(weights),
        **packed(weights),
        f".kpz, {bits} bits": coding.encode(model, path, bits=bits).file,
        ".kpz, weights as they are": coding.encode(model, path).file,
    }
    return [{"name": name, "bytes": size, "ratio": len(weights) / size} for name, size in found.items()]


def measure_file(model, path: Path, turns: int) -> list[dict]:
    """Seconds to encode (with verification) and to decode, arrays alone and as a Keras model."""
    from secateur import coding

    arrays = {v.path: v.numpy() for v in model.weights}
    calls = {
        "decode arrays": lambda: coding.decode_arrays(path),
        "encode arrays": lambda: coding.encode_arrays(arrays, path.with_suffix(".arrays.kpz")),
        "decode model": lambda: coding.decode(path),
        "encode model": lambda: coding.encode(model, path.with_suffix(".again.kpz")),
    }
    return summary(
        take_turns({name: lambda c=call: timed(c) for name, call in calls.items()}, turns), "decode arrays"
    )


def run(args: argparse.Namespace) -> None:
    """Measures, prints, writes."""
    from secateur.recipes.engine.subject import load_model

    model = load_model(args.model) if args.model else shared_net(args.bits)
    streams = measure_streams(args.bits, args.turns)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.kpz"
        files = sizes(model, path, args.bits)
        seconds = measure_file(model, path, args.turns)
    cells = [
        (s["name"], f"{s['over_entropy']:.4%}", f"{s['encode']:.0f}", f"{s['decode']:.0f}") for s in streams
    ]
    titles = ("", "above entropy", "encode MB/s", "decode MB/s")
    print_table(f"{STREAM:,} indexes of {args.bits} bits, normally distributed", titles, cells)
    cells = [(row["name"], f"{row['bytes']:,}", f"{row['ratio']:.2f}") for row in files]
    print_table(f"{model.name}, bytes", ("", "bytes", "times smaller"), cells)
    print_summary(f"{model.name}, {files[-1]['bytes']:,} bytes", seconds, "decode arrays")
    about = {"model": model.name, "bits": args.bits}
    save("coding", {**about, "streams": streams, "sizes": files, "seconds": seconds})


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coding", description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a .keras file; default: ResNet-56 with shared random weights")
    parser.add_argument("--bits", type=int, default=5, choices=range(1, 9))
    parser.add_argument("--turns", type=int, default=11)
    args = parser.parse_args()
    if args.turns < 1:
        raise UsageError(f"At least 1 turn. Received: turns={args.turns}")
    start_tensorflow()
    run(args)


if __name__ == "__main__":
    sys.exit(cli(main))
