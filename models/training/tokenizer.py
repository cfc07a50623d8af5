#!/usr/bin/env python3
"""Trains the byte-level BPE tokenizer on part of DATA/corpus.jsonl.

    tokenizer.py --data DATA --vocab 16384 --out tokenizer.json
"""

import argparse
import json
import pathlib
import random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

# In this order, from id 0 on: the decoder's end, the cursor's marks, padding, repository and file.
SPECIAL = [
    "<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    "<|repo_name|>", "<|file_sep|>",
]
# A word with one sign before it, a digit alone, signs, line ends with their indentation.
PIECES = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PART = 0.25


def texts(path: pathlib.Path):
    rng = random.Random(1)
    with open(path) as lines:
        for line in lines:
            if rng.random() < PART:
                yield json.loads(line)["text"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Trains the tokenizer.")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--vocab", type=int, default=16_384)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab, special_tokens=SPECIAL, min_frequency=3, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts(options.data / "corpus.jsonl"), trainer)
    tokenizer.save(str(options.out))
    sample = tokenizer.encode("def main():\n        print('hi')\n\nfn foo(&self) -> Result<()> {")
    print(tokenizer.get_vocab_size(), sample.tokens)


if __name__ == "__main__":
    main()
