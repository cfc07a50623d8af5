"""How far a quantised model is from the reference, teacher-forced along the reference's own path.

    quality.py FOLDER [--gguf FILE...] [--logits FILE...]

FOLDER holds two files that weir writes from its reference (bf16 weights):

ids.jsonl
    One prompt a line: {"prompt": [ids...], "path": [ids...]}. The path is the reference's greedy
    continuation of the prompt; all paths have the same length, 64 by convention.
reference.f32
    Little-endian f32, [prompts x path, vocab], no header: for each prompt in the order of
    ids.jsonl, for each i, the logits (or log-probabilities: rows are normalised here) that predict
    path[i], given the prompt and path[..i]. The vocabulary's size follows from the file's size.

Each --gguf file is run by llama.cpp on the same ids: the prompt in one pass, then the path token by
token, as generation does. Each --logits file has the layout of reference.f32 and is compared as it
is: weir's own q8 and q4 go this way, so that one piece of arithmetic judges both engines. Printed
for each: one JSON object with the mean of KL(reference || other) in nats, its standard error over
prompts, the highest, and the share of positions where both have the same likeliest id.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

import llama

# Below this share of its own path the reference's rows belong to other positions.
OWN_PATH_MIN = 0.99


class Reference:
    def __init__(self, folder: pathlib.Path):
        lines = (folder / "ids.jsonl").read_text().splitlines()
        self.prompts = [json.loads(line) for line in lines]
        lengths = {len(prompt["path"]) for prompt in self.prompts}
        if len(lengths) != 1:
            raise SystemExit(f"{folder}: paths of several lengths: {sorted(lengths)}")
        self.path = lengths.pop()
        self.rows = self.read(folder / "reference.f32")
        own = np.mean([
            rows.argmax(axis=1) == prompt["path"] for prompt, rows in zip(self.prompts, self.rows)
        ])
        if own < OWN_PATH_MIN:
            raise SystemExit(f"{folder}: the reference chooses only {own:.1%} of its own path")

    def read(self, path: pathlib.Path) -> np.ndarray:
        """`[prompts, path, vocab]`, mapped."""
        positions = len(self.prompts) * self.path
        vocab, rest = divmod(path.stat().st_size, 4 * positions)
        if rest or not vocab:
            raise SystemExit(f"{path}: not {positions} rows of f32")
        return np.memmap(path, "<f4", "r", shape=(len(self.prompts), self.path, vocab))


def log_softmax(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    rows = rows - rows.max(axis=1, keepdims=True)
    return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))


def compare(reference: Reference, rows_of) -> dict:
    """`rows_of(index, prompt)` gives the other model's `[path, vocab]` of a prompt."""
    divergences, agreements = [], []
    for index, prompt in enumerate(reference.prompts):
        ours, theirs = log_softmax(reference.rows[index]), log_softmax(rows_of(index, prompt))
        divergences.append((np.exp(ours) * (ours - theirs)).sum(axis=1))
        agreements.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
    per_prompt = np.mean(divergences, axis=1)
    return {
        "positions": int(np.size(divergences)),
        "kl_mean": float(np.mean(divergences)),
        "kl_mean_error": float(per_prompt.std(ddof=1) / len(per_prompt) ** 0.5),
        "kl_max": float(np.max(divergences)),
        "agreement": float(np.mean(agreements)),
    }


class Forced:
    """llama.cpp along given paths."""

    def __init__(self, file: str, reference: Reference, threads: int, flash: bool):
        self.model = llama.Model(file)
        if self.model.vocab != reference.rows.shape[2]:
            raise SystemExit(f"{file}: {self.model.vocab} ids, not {reference.rows.shape[2]}")
        longest = max(len(prompt["prompt"]) for prompt in reference.prompts) + reference.path
        self.context = llama.Context(self.model, longest, 1, flash, threads)

    def rows(self, _index: int, prompt: dict) -> np.ndarray:
        ids, path = prompt["prompt"], prompt["path"]
        self.context.truncate(0, 0)
        self.context.prefill(0, ids)
        rows = [self.context.logits((len(ids) - 1) % llama.UBATCH).copy()]
        for position, id in enumerate(path[:-1], len(ids)):
            self.context.decode(position, [id])
            rows.append(self.context.logits(0).copy())
        return np.stack(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="KL and agreement with a reference.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gguf", nargs="*", default=[])
    parser.add_argument("--logits", nargs="*", default=[], type=pathlib.Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-flash", action="store_true", help="llama.cpp's other attention")
    args = parser.parse_args()
    reference = Reference(args.folder)
    for file in args.gguf:
        forced = Forced(file, reference, args.threads, not args.no_flash)
        report(file, compare(reference, forced.rows))
    for file in args.logits:
        others = reference.read(file)
        report(file, compare(reference, lambda index, _prompt: others[index]))


def report(file, result: dict) -> None:
    print(json.dumps({"file": pathlib.Path(file).name} | result))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
