"""Writes a Hugging Face folder of random weights, so that weir and its peers load the same numbers.

    random_model.py SHAPE FOLDER

Weights are bf16, uniform, of the variance that keeps activations near 1; norms are 1; biases are
within 0.1. Random weights are fine for speed: no kernel here looks at a value. They say nothing of
quality, nor of speculation.
"""

import argparse
import json
import pathlib
import shutil

import numpy as np

import shapes

SEED = 1
TOKENIZER = pathlib.Path(__file__).parents[2] / "models/default/tokenizer.json"


def bf16(numbers: np.ndarray) -> np.ndarray:
    """f32 rounded to the nearest bf16, ties to even, as the upper halves of words."""
    bits = numbers.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def tensor(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("norm.weight"):
        return bf16(np.ones(shape, np.float32))
    bound = 0.1 if len(shape) == 1 else (3.0 / shape[1]) ** 0.5
    uniform = random.random(shape, np.float32)
    return bf16((2.0 * uniform - 1.0) * np.float32(bound))


def write_safetensors(path: pathlib.Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """One tensor in memory at a time; the format is a length, a JSON header and the bytes."""
    header, end = {}, 0
    for name, shape in tensors.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.Generator(np.random.PCG64(SEED))
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, shape in tensors.items():
            file.write(tensor(random, name, shape).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes a folder of random weights.")
    parser.add_argument("shape", choices=shapes.CONFIGS)
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    config = shapes.CONFIGS[args.shape]
    args.folder.mkdir(parents=True, exist_ok=True)
    (args.folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    # The ids of a bench are made up, but no folder loads without a tokenizer.
    shutil.copy(TOKENIZER, args.folder)
    write_safetensors(args.folder / "model.safetensors", shapes.tensors(config))


if __name__ == "__main__":
    main()
