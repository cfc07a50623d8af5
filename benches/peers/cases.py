"""What is compared with what: each row of a record is one of these."""

import dataclasses

SHAPE = "qwen2.5-coder-0.5b"
LARGER = "qwen2.5-coder-1.5b"
EMBEDDED = "default"


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    # A folder under the data folder; `default` is the model inside the binary.
    model: str
    # Arguments of `weir bench`, without the model and without --json.
    weir: tuple[str, ...]
    # "llama.cpp" or "candle", and the file it reads: under gguf/, or "f32" and "bf16" for the
    # folder itself, which only candle reads.
    peer: str
    file: str
    job: tuple[tuple[str, object], ...]
    # The ratio that the project asks of itself; None where the row is for orientation.
    goal: float | None = None

    def context(self) -> int:
        job = dict(self.job)
        return job["context"] if self.job[0] == ("op", "decode") else job["tokens"]


def decode(model, quant, peer, file, goal=None, context=512, tokens=64, batch=1) -> Case:
    command = "decode" if batch == 1 else "batch"
    weir = [command, "--quant", quant, "--context", str(context), "--tokens", str(tokens)]
    job = {"op": "decode", "context": context, "tokens": tokens}
    name = f"decode-{quant}-{context}"
    if batch > 1:
        weir += ["--batch", str(batch)]
        job["batch"] = batch
        name = f"batch{batch}-{quant}-{context}"
    return Case(label(name, model, peer, file), model, tuple(weir), peer, file, pairs(job), goal)


def prefill(model, quant, peer, file, goal=None, tokens=512) -> Case:
    weir = ("prefill", "--quant", quant, "--context", str(tokens))
    name = label(f"prefill-{quant}-{tokens}", model, peer, file)
    return Case(name, model, weir, peer, file, pairs({"op": "prefill", "tokens": tokens}), goal)


def label(name: str, model: str, peer: str, file: str) -> str:
    size = {SHAPE: "0.5b", LARGER: "1.5b", EMBEDDED: "embedded"}[model]
    return f"{size}/{name}/{peer}-{file}"


def pairs(job: dict) -> tuple[tuple[str, object], ...]:
    return tuple(job.items())


LLAMA, CANDLE = "llama.cpp", "candle"

# Rows of one file stand together, so that a peer is loaded once.
CASES = [
    decode(SHAPE, "q8", LLAMA, "q8_0", 0.97),
    decode(SHAPE, "q8", LLAMA, "q8_0", 1.0, context=4096),
    decode(SHAPE, "q8", LLAMA, "q8_0", 2.0, batch=8),
    prefill(SHAPE, "q8", LLAMA, "q8_0", 2.5),
    decode(SHAPE, "q4", LLAMA, "q4_0", 1.15),
    prefill(SHAPE, "q4", LLAMA, "q4_0", 2.5),
    decode(SHAPE, "q4", LLAMA, "q4_k_m", 1.9),
    prefill(SHAPE, "q4", LLAMA, "q4_k_m"),
    decode(SHAPE, "bf16", LLAMA, "bf16", 1.25),
    prefill(SHAPE, "bf16", LLAMA, "bf16", 5.0),
    # A token of the embedded model takes less than a millisecond: more of them, or the clock and
    # the scheduler are measured.
    decode(EMBEDDED, "bf16", LLAMA, "bf16", 1.5, tokens=448),
    prefill(EMBEDDED, "bf16", LLAMA, "bf16"),
    decode(EMBEDDED, "q8", LLAMA, "q8_0", 1.5, tokens=448),
    prefill(EMBEDDED, "q8", LLAMA, "q8_0"),
    decode(SHAPE, "q8", CANDLE, "q8_0", 2.2),
    prefill(SHAPE, "q8", CANDLE, "q8_0", 15.0),
    decode(SHAPE, "q4", CANDLE, "q4_0"),
    prefill(SHAPE, "q4", CANDLE, "q4_0"),
    decode(SHAPE, "q4", CANDLE, "q4_k_m"),
    prefill(SHAPE, "q4", CANDLE, "q4_k_m"),
    decode(SHAPE, "bf16", CANDLE, "bf16"),
    prefill(SHAPE, "bf16", CANDLE, "bf16"),
    decode(SHAPE, "f32", CANDLE, "f32"),
    prefill(SHAPE, "f32", CANDLE, "f32"),
    decode(LARGER, "q8", LLAMA, "q8_0"),
    prefill(LARGER, "q8", LLAMA, "q8_0"),
    decode(LARGER, "q4", LLAMA, "q4_0"),
    prefill(LARGER, "q4", LLAMA, "q4_0"),
]
