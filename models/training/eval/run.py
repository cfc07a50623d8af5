#!/usr/bin/env python3
"""Measures models at the cursors of cases.jsonl: what the gateway answers, and the loss.

    run.py --cases cases.jsonl --weir target/release/weir --held-out held-out.jsonl MODEL...

Completions come from `weir serve --model MODEL`, greedy, as an editor gets them: with the stops that
fit code and with healed tokens, but as many lines as fit whatever `weir.json` says, in both orders
of the prompt. Exact match and edit similarity leave
out white space at both ends. A file is parsed by tree-sitter with the completion in it; beside that
stands the rate with nothing in its place and with what was there. The loss is nats per token of the
held-out files' beginnings, and per byte, because tokens differ.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import difflib
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import torch
import torch.nn.functional as F
import tree_sitter
import tree_sitter_go
import tree_sitter_python
import tree_sitter_rust
import tree_sitter_typescript
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import model as models  # noqa: E402

GRAMMARS = {
    "rust": tree_sitter_rust.language(),
    "python": tree_sitter_python.language(),
    "typescript": tree_sitter_typescript.language_typescript(),
    "go": tree_sitter_go.language(),
}
PORT = 18477
ORDERS = ["spm", "psm"]
LINE_TOKENS, BLOCK_TOKENS = 48, 160
READY_SECONDS_MAX = 60
LOSS_FILES, LOSS_TOKENS = 60, 1024


@contextlib.contextmanager
def served(weir: pathlib.Path, model: pathlib.Path, order: str):
    """A gateway with this model; gives its address."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml", delete=False) as config:
        config.write(f'[model]\nfim_order = "{order}"\nfim_lines = "block"\n')
    command = [weir, "serve", "--offline", "--config", config.name, "--model", model,
               "--listen", f"127.0.0.1:{PORT}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{PORT}"
    try:
        ends = time.monotonic() + READY_SECONDS_MAX
        while True:
            try:
                urllib.request.urlopen(f"{url}/ready", timeout=1).read()
                break
            except (urllib.error.URLError, OSError):
                if time.monotonic() > ends or process.poll() is not None:
                    raise
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()
        pathlib.Path(config.name).unlink()


def complete(url: str, case: dict) -> str:
    body = {
        "prompt": case["prefix"], "suffix": case["suffix"], "path": case["path"],
        "max_tokens": LINE_TOKENS if case["kind"] == "line" else BLOCK_TOKENS, "temperature": 0,
    }
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        text = json.load(reply)["choices"][0]["text"]
    return text.split("\n")[0] if case["kind"] == "line" else text


def parses(language: str, text: str) -> bool:
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language]))
    return not parser.parse(text.encode()).root_node.has_error


class Score:
    """What so many completions of one kind came to."""

    def __init__(self):
        self.count = self.exact = self.parsed = self.parsed_nothing = self.parsed_truth = 0
        self.similar = 0.0

    def add(self, case: dict, answer: str) -> None:
        wanted, given = case["middle"].strip(), answer.strip()
        self.count += 1
        self.exact += wanted == given
        self.similar += difflib.SequenceMatcher(None, given, wanted, autojunk=False).ratio()
        around = lambda middle: case["prefix"] + middle + case["suffix"]  # noqa: E731
        self.parsed += parses(case["lang"], around(answer))
        self.parsed_nothing += parses(case["lang"], around(""))
        self.parsed_truth += parses(case["lang"], around(case["middle"]))

    def row(self) -> str:
        n = max(1, self.count)
        return (f"{self.count:>5} {self.exact / n:>7.3f} {self.similar / n:>7.3f} "
                f"{self.parsed / n:>7.3f} {self.parsed_nothing / n:>8.3f} "
                f"{self.parsed_truth / n:>7.3f}")


def completions(options, model: pathlib.Path, cases: list[dict]) -> None:
    print(f"{'language':<12}{'kind':<6}{'order':<6}{'cases':>5} {'exact':>7} {'similar':>7} "
          f"{'parses':>7} {'(nothing)':>8} {'(truth)':>7}")
    for order in options.orders.split(","):
        scores = collections.defaultdict(Score)
        with served(options.weir, model, order) as url, \
                concurrent.futures.ThreadPoolExecutor(4) as pool:
            for case, answer in zip(cases, pool.map(lambda c: complete(url, c), cases)):
                scores[case["lang"], case["kind"]].add(case, answer)
        for (language, kind), score in scores.items():
            print(f"{language:<12}{kind:<6}{order:<6}{score.row()}", flush=True)


@torch.no_grad()
def losses(model: pathlib.Path, held_out: pathlib.Path) -> None:
    """Loss of plain text, each file from its beginning."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    decoder = models.load(model, models.precision("cpu"))
    window = min(LOSS_TOKENS, decoder.shape.context)
    sums = collections.defaultdict(lambda: [0.0, 0, 0, 0])
    files = [json.loads(line) for line in held_out.read_text().splitlines()]
    random.Random(1).shuffle(files)
    for file in files:
        total = sums[file["lang"]]
        if file["lang"] not in GRAMMARS or total[3] >= LOSS_FILES:
            continue
        ids = tokenizer.encode(file["text"], add_special_tokens=False).ids[:window]
        if len(ids) < window // 2:
            continue
        with decoder.autocast("cpu"):
            hidden = decoder(torch.tensor([ids]))[0, :-1].float()
        logits = hidden @ decoder.embed_tokens.weight.T
        total[0] += F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum").item()
        total[1] += len(ids) - 1
        total[2] += len(tokenizer.decode(ids[1:]).encode())
        total[3] += 1
    for language, (nats, tokens, size, files) in sums.items():
        if files:
            print(f"loss  {language:<12}{nats / tokens:.3f} nats per token, "
                  f"{nats / size / math.log(2):.3f} bits per byte, {files} files", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures models.")
    parser.add_argument("models", nargs="+", type=pathlib.Path)
    parser.add_argument("--cases", type=pathlib.Path, required=True)
    parser.add_argument("--held-out", type=pathlib.Path)
    parser.add_argument("--orders", default=",".join(ORDERS), help="of the prompt, by commas")
    parser.add_argument("--weir", type=pathlib.Path, default=pathlib.Path("target/release/weir"))
    options = parser.parse_args()
    cases = [json.loads(line) for line in options.cases.read_text().splitlines()]
    for model in options.models:
        print(f"\n{model}")
        if options.held_out:
            losses(model, options.held_out)
        completions(options, model, cases)


if __name__ == "__main__":
    main()
