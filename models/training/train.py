#!/usr/bin/env python3
"""Trains the decoder on rows of FIM documents, in pieces, and writes it as Hugging Face would.

    train.py --data DATA --out OUT --tokens 26 [--init MODEL] [--piece 10]

Matrices are trained by Muon (Jordan and others, 2024), the rest by AdamW. The rate falls with the
tokens seen. A piece ends after so many minutes with a checkpoint in OUT; the same command goes on
from there.
"""

import argparse
import json
import pathlib
import time

import numpy
import torch

import model as models

MIDDLE, COMMENT = 1 << 15, 1 << 14
# Where text ends, a model has to know; where a document's parts begin, it is told.
CONTROL = range(1, 7)
# A token of a middle counts as so many others: there are few, and they are what is asked for.
MIDDLE_WEIGHT = 3.0
# And one of a comment as such a part: what a small model can learn should be code.
COMMENT_WEIGHT = 0.25
# What part of the steps has rows of which length, all the way: trained on short rows alone, a model
# forgets within 10 million tokens what it knew of far positions.
LENGTHS = {512: 0.2, 1024: 0.4, 2048: 0.4}
GOLDEN = 0.6180339887
# The rate rises over so many steps, stays until this part of the tokens, and falls to this part.
WARM_UP_STEPS = 50
FALLS_FROM = 0.45
RATE_LAST = 0.02
# For batches of 16 thousand tokens: at three times this the loss of a model that was trained
# before rises at once.
MUON_RATE, MUON_MOMENTUM, MUON_DECAY = 0.006, 0.95, 0.1
ADAM_RATE = 1e-3


class Rows:
    """Rows of each length in the order of the parts; from the beginning again after the last."""

    def __init__(self, data: pathlib.Path, at: dict):
        self.data, self.at, self.parts = data, at, {}

    def take(self, length: int, count: int) -> numpy.ndarray:
        """The next rows `[count, length]`."""
        taken = []
        while count > 0:
            part, row = self.at.get(str(length), (0, 0))
            rows = self.part(length, part)
            if rows is None:
                assert part > 0, f"there are no rows of {length} tokens in {self.data}"
                self.at[str(length)] = (0, 0)
                continue
            some = rows[row:row + count]
            taken.append(some)
            count -= len(some)
            row += len(some)
            self.at[str(length)] = (part, row) if row < len(rows) else (part + 1, 0)
        return numpy.concatenate(taken)

    def part(self, length: int, number: int) -> numpy.ndarray | None:
        if self.parts.get(length, (None,))[0] != number:
            path = self.data / f"rows-{length}-{number:03}.npz"
            rows = numpy.load(path)["rows"] if path.exists() else None
            self.parts[length] = (number, rows)
        return self.parts[length][1]


def batch(rows: numpy.ndarray, device: str):
    """Inputs, targets and weights `[rows, length - 1]`."""
    rows = torch.from_numpy(rows.astype(numpy.int64)).to(device)
    tokens = rows & (COMMENT - 1)
    targets, inputs = tokens[:, 1:], tokens[:, :-1]
    weights = torch.where(rows[:, 1:] & MIDDLE > 0, MIDDLE_WEIGHT, 1.0)
    weights = weights * torch.where(rows[:, 1:] & COMMENT > 0, COMMENT_WEIGHT, 1.0)
    told = (targets >= CONTROL.start) & (targets < CONTROL.stop)
    return inputs, targets, weights.masked_fill(told, 0.0)


def length_at(step: int) -> int:
    """The length of a step's rows: evenly mixed, and the same whenever a run goes on."""
    place = step * GOLDEN % 1
    for length, part in LENGTHS.items():
        if place < part:
            return length
        place -= part
    return length


class Muon:
    """Momentum made orthogonal; matrices of one shape go together."""

    def __init__(self, weights, low: torch.dtype):
        self.low = low
        groups = {}
        for weight in weights:
            groups.setdefault(tuple(weight.shape), []).append(weight)
        self.groups = list(groups.values())
        self.momenta = [torch.zeros(len(g), *g[0].shape, device=g[0].device) for g in self.groups]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, momentum in zip(self.groups, self.momenta):
            grads = torch.stack([weight.grad for weight in group])
            momentum.mul_(MUON_MOMENTUM).add_(grads)
            update = orthogonal(grads + MUON_MOMENTUM * momentum, self.low)
            rows, columns = group[0].shape
            scale = MUON_RATE * rate * max(1, rows / columns) ** 0.5
            for weight, change in zip(group, update):
                weight.mul_(1 - MUON_RATE * rate * MUON_DECAY).sub_(change, alpha=scale)
                weight.grad = None


def orthogonal(x: torch.Tensor, low: torch.dtype) -> torch.Tensor:
    """Nearly the orthogonal matrices closest to `x` `[count, rows, columns]`: five steps of the
    quintic of Newton and Schulz."""
    tall = x.shape[1] > x.shape[2]
    x = x.mT.to(low) if tall else x.to(low)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.mT if tall else x).float()


class Training:
    """All that a checkpoint holds."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.low = models.precision(self.device)
        self.state = {"step": 0, "seconds": 0.0, "tokens": 0, "at": {}}
        self.model = self.first_model().to(self.device)
        matrices, others = [], []
        for name, weight in self.model.named_parameters():
            is_matrix = weight.dim() == 2 and "embed" not in name
            (matrices if is_matrix else others).append(weight)
        self.muon = Muon(matrices, self.low)
        self.others = others
        self.adam = torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
        if self.checkpoint.exists():
            self.resume()
        self.rows = Rows(options.data, self.state["at"])
        self.forward = torch.compile(self.model, dynamic=False)

    @property
    def checkpoint(self) -> pathlib.Path:
        return self.options.out / "checkpoint.pt"

    def first_model(self) -> models.Model:
        shape = models.Shape(**json.loads(self.options.shape))
        if self.options.init is None:
            return models.Model(shape, self.low)
        return models.grow(models.load(self.options.init, self.low), shape)

    def resume(self) -> None:
        saved = torch.load(self.checkpoint, map_location=self.device)
        self.model.load_state_dict(saved["model"])
        self.adam.load_state_dict(saved["adam"])
        self.muon.momenta = saved["muon"]
        self.state = saved["state"]

    def keep(self) -> None:
        self.options.out.mkdir(parents=True, exist_ok=True)
        saved = {
            "model": self.model.state_dict(), "adam": self.adam.state_dict(),
            "muon": self.muon.momenta, "state": self.state,
        }
        fresh = self.checkpoint.with_suffix(".new")
        torch.save(saved, fresh)
        fresh.replace(self.checkpoint)
        models.save(self.model, self.options.out)

    def rate(self, part: float) -> float:
        rise = min(1.0, (self.state["step"] + 1) / WARM_UP_STEPS)
        fall = max(RATE_LAST, (1 - part) / (1 - FALLS_FROM))
        return rise * min(1.0, fall)

    def step(self, part: float) -> float:
        length = length_at(self.state["step"])
        rows = self.rows.take(length, self.options.batch_tokens // length)
        inputs, targets, weights = batch(rows, self.device)
        with self.model.autocast(self.device):
            hidden = self.forward(inputs)
        loss = self.model.loss(hidden, targets, weights)
        loss.backward()
        rate = self.rate(part)
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        for group in self.adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.muon.step(rate)
        self.state["step"] += 1
        self.state["tokens"] += inputs.numel()
        return loss.item()

    def run(self) -> bool:
        """Trains until the piece or the whole is over; says whether the whole is."""
        piece_ends = time.monotonic() + 60 * self.options.piece
        mean = None
        while True:
            part = self.state["tokens"] / (1e6 * self.options.tokens)
            began = time.monotonic()
            if part >= 1 or began > piece_ends:
                return part >= 1
            loss = self.step(part)
            self.state["seconds"] += time.monotonic() - began
            mean = loss if mean is None else 0.97 * mean + 0.03 * loss
            if self.state["step"] % 25 == 0:
                self.tell(mean, part)

    def tell(self, mean: float, part: float) -> None:
        s = self.state
        speed = s["tokens"] / s["seconds"] if s["seconds"] else 0
        print(f"step {s['step']}  {s['tokens'] / 1e6:.2f} M tokens, {speed:.0f} a second  "
              f"loss {mean:.3f}  rate {self.rate(part):.2f}  {100 * part:.1f} %", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains the decoder.")
    parser.add_argument("--data", type=pathlib.Path, required=True, help="where the rows are")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--init", type=pathlib.Path, help="a model to go on from")
    parser.add_argument("--shape", default="{}", help="sizes that are not the defaults, as JSON")
    parser.add_argument("--tokens", type=float, required=True, help="of the whole, in millions")
    parser.add_argument("--piece", type=float, default=10, help="minutes until a checkpoint")
    parser.add_argument("--batch-tokens", type=int, default=16_384)
    parser.add_argument("--threads", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    training = Training(options)
    size = sum(weight.numel() for weight in training.model.parameters())
    print(f"{size / 1e6:.2f} million parameters on {training.device}, {training.low}", flush=True)
    done = training.run()
    training.keep()
    print("done" if done else "to be continued", flush=True)


if __name__ == "__main__":
    main()
