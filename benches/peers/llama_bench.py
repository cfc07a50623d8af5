"""llama.cpp behind the line protocol of README.md: one job of JSON per line in, one answer out.

    llama_bench.py FILE.gguf [--threads N]

    {"op": "decode", "context": 512, "tokens": 64, "batch": 1, "flash": true}
    {"op": "prefill", "tokens": 512, "flash": true}

The model and its contexts stay loaded, so that the runner can alternate them with weir. The clock
runs inside llama_decode only: the argmax, and all that Python does, is at no cost to llama.cpp.
"""

import argparse
import json
import pathlib
import sys

import llama_cpp

import llama


class Bench:
    def __init__(self, model: llama.Model, threads: int):
        self.model = model
        self.threads = threads
        self.contexts: dict[tuple, llama.Context] = {}
        # What each context's sequences were prefilled with: the length, and the ids that followed.
        self.prefilled: dict[tuple, tuple[int, list[int]]] = {}

    def run(self, job: dict) -> dict:
        job = dict(job)
        op = job.pop("op")
        return {"decode": self.decode, "prefill": self.prefill}[op](**job)

    def decode(self, context: int, tokens: int, batch: int = 1, flash: bool = True) -> dict:
        key, engine = self.context(context + tokens, batch, flash)
        last = self.prompts(key, engine, context, batch)
        engine.seconds = 0.0
        ids = []
        for position in range(context, context + tokens):
            last = engine.decode(position, last)
            ids += last
        kv = (context + tokens / 2) * self.model.kv_bytes_per_token()
        bytes_per_token = self.model.weight_bytes() / batch + kv
        return answer(engine.seconds, tokens, batch, ids) | {"bytes_per_token": bytes_per_token}

    def prefill(self, tokens: int, flash: bool = True) -> dict:
        key, engine = self.context(tokens, 1, flash)
        self.prefilled.pop(key, None)
        engine.truncate(0, 0)
        engine.seconds = 0.0
        first = engine.prefill(0, prompt(0, tokens, self.model.vocab))
        return answer(engine.seconds, tokens, 1, [first])

    def context(self, tokens: int, batch: int, flash: bool) -> tuple[tuple, llama.Context]:
        key = (tokens, batch, flash)
        if key not in self.contexts:
            self.contexts[key] = llama.Context(self.model, tokens, batch, flash, self.threads)
        return key, self.contexts[key]

    def prompts(self, key: tuple, engine: llama.Context, context: int, batch: int) -> list[int]:
        """Brings every sequence to its prompt, by forgetting what a job before generated."""
        length, first = self.prefilled.get(key, (0, []))
        if length != context:
            first = []
            for sequence in range(batch):
                engine.truncate(sequence, 0)
                ids = prompt(sequence, context, self.model.vocab)
                first.append(engine.prefill(sequence, ids))
            self.prefilled[key] = (context, first)
        for sequence in range(batch):
            engine.truncate(sequence, context)
        return first


def answer(seconds: float, steps: int, batch: int, ids: list[int]) -> dict:
    return {
        "tokens_per_second": steps * batch / seconds,
        # Of one step: with a batch, the time of one token of every sequence.
        "ms_per_token": 1e3 * seconds / steps,
        "seconds": seconds,
        "token_hash": fnv(ids),
    }


def prompt(sequence: int, tokens: int, vocab: int) -> list[int]:
    """The ids that `weir bench` uses."""
    return [(sequence * 7919 + at * 104_729 + 17) % vocab for at in range(tokens)]


def fnv(ids: list[int]) -> str:
    """FNV-1a over ids, as `weir bench` hashes them."""
    value = 0xCBF29CE484222325
    for id in ids:
        for byte in id.to_bytes(4, "little"):
            value = ((value ^ byte) * 0x0100000001B3) % (1 << 64)
    return f"{value:016x}"


def say(line: dict) -> None:
    print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="llama.cpp as a server of benches.")
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = llama.Model(args.file)
    bench = Bench(model, args.threads)
    say(
        {
            "ready": True,
            "engine": "llama.cpp",
            "version": f"llama-cpp-python {llama_cpp.__version__}",
            "model": pathlib.Path(args.file).name,
            "weights": model.description(),
            "weight_bytes": model.weight_bytes(),
            "threads": args.threads,
            "system": llama_cpp.llama_print_system_info().decode().strip(),
        }
    )
    for line in sys.stdin:
        say(bench.run(json.loads(line)))


if __name__ == "__main__":
    main()
