#!/usr/bin/env python3
"""Makes rows of FIM documents: DATA/rows-LENGTH-NNN.npz, `rows` of `[documents, LENGTH]` uint16.

    pack.py --data DATA --tokenizer tokenizer.json --plan 512=6,1024=11,2048=11

The plan says how many million tokens of each row length. Reads DATA/corpus.jsonl. A document is a
file around a cursor, as the gateway would ask for it: the path, files beside it, SPM or PSM. Bit 15
of a token says that it belongs to the middle, bit 14 that it is a comment's. Each part holds at most
60 MiB.
"""

import argparse
import bisect
import json
import pathlib
import random

import numpy
from tokenizers import Tokenizer

import comments
import cursors

# A language's part of the tokens.
MIX = {
    "rust": 0.24, "python": 0.24, "typescript": 0.20, "go": 0.22,
    "javascript": 0.03, "c": 0.03, "java": 0.04,
}
MIDDLE, COMMENT = 1 << 15, 1 << 14
# Documents are cut from texts somewhat longer than they may be, so that rows are full.
CHARS_PER_TOKEN = 4.2
# Chances, of what editors and clients send.
IS_PLAIN = 0.08
IS_SPM = 0.62
HAS_PATH = 0.75
HAS_SUFFIX = 0.88
HAS_NEIGHBOURS = {512: 0.0, 1024: 0.2, 2048: 0.35}
# In SPM, prefix and middle are one text whose cursor may be where a token ends anyway.
IS_JOINED = 0.6
SUFFIX_PART = (0.04, 0.35)
DOCUMENTS_AT_ONCE = 4096
ROWS_OPEN_MAX = 64
PART_TOKENS = 24_000_000


class Packer:
    """Fills rows of one length."""

    def __init__(self, length: int, pad: int):
        self.length, self.pad = length, pad
        self.rows: list[numpy.ndarray] = []
        self.open: list[list[int]] = []

    def add(self, tokens: list[int]) -> None:
        fits = [row for row in self.open if len(row) + len(tokens) <= self.length]
        if fits:
            row = max(fits, key=len)
            row += tokens
        else:
            row = list(tokens)
            self.open.append(row)
        if len(row) > self.length - 16:
            self.open.remove(row)
            self.close(row)
        elif len(self.open) > ROWS_OPEN_MAX:
            fullest = max(self.open, key=len)
            self.open.remove(fullest)
            self.close(fullest)

    def close(self, row: list[int]) -> None:
        self.rows.append(numpy.array(row + [self.pad] * (self.length - len(row)), numpy.uint16))


class Documents:
    """Draws texts around cursors from the corpus, each language by its part."""

    def __init__(self, path: pathlib.Path, seed: int):
        self.random = random.Random(seed)
        self.files = {language: [] for language in MIX}
        with open(path) as lines:
            for line in lines:
                file = json.loads(line)
                if file["lang"] in self.files:
                    self.files[file["lang"]].append(file)
        self.mix = {language: MIX[language] for language, files in self.files.items() if files}
        for files in self.files.values():
            files.sort(key=lambda file: (file["source"], file["path"]))
        # A file is drawn as often as it is long.
        self.ends = {}
        for language, files in self.files.items():
            lengths = numpy.array([len(file["text"]) for file in files])
            self.ends[language] = numpy.cumsum(lengths).tolist()

    def draw(self, length: int) -> dict:
        """A text for a document of about so many tokens."""
        rng = self.random
        language = rng.choices(list(self.mix), list(self.mix.values()))[0]
        files, ends = self.files[language], self.ends[language]
        at = bisect.bisect(ends, rng.random() * ends[-1])
        file = files[min(at, len(files) - 1)]
        chars = int(length * CHARS_PER_TOKEN)
        neighbours = []
        if rng.random() < HAS_NEIGHBOURS[length]:
            neighbours = self.neighbours(files, at, chars)
            chars -= sum(len(text) for _, text in neighbours)
        cut = cursors.cut(rng, file["text"])
        prefix, middle, suffix = cut if cut else (file["text"][:chars], "", "")
        plain = cut is None or rng.random() < IS_PLAIN
        suffix_chars = int(chars * rng.uniform(*SUFFIX_PART)) if rng.random() < HAS_SUFFIX else 0
        prefix_chars = max(0, chars - suffix_chars - len(middle))
        kept = cursors.last_lines(prefix, prefix_chars)
        marks = comments.mask(language, file["text"])[len(prefix) - len(kept):]
        return {
            "path": file["path"] if rng.random() < HAS_PATH or neighbours else None,
            "neighbours": neighbours,
            "marks": marks,
            "prefix": kept,
            "middle": middle,
            "suffix": suffix[:suffix_chars],
            "plain": plain,
            "spm": rng.random() < IS_SPM,
            "joined": rng.random() < IS_JOINED,
        }

    def neighbours(self, files: list[dict], at: int, chars: int) -> list[tuple[str, str]]:
        """Pieces of one or two files of the same source that stand beside it."""
        rng, found = self.random, []
        near = [at + step for step in (-3, -2, -1, 1, 2, 3) if 0 <= at + step < len(files)]
        near = [other for other in near if files[other]["source"] == files[at]["source"]]
        for other in rng.sample(near, min(len(near), rng.choice((1, 1, 2)))):
            text = files[other]["text"]
            room = int(chars * rng.uniform(0.08, 0.25))
            start = rng.randrange(max(1, len(text) - room))
            start = text.rfind("\n", 0, start) + 1
            found.append((files[other]["path"], text[start:start + room].rstrip() + "\n"))
        return found


class Encoder:
    """Turns drawn texts into tokens."""

    def __init__(self, path: pathlib.Path):
        self.tokenizer = Tokenizer.from_file(str(path))
        ids = self.tokenizer.token_to_id
        self.end, self.pad = ids("<|endoftext|>"), ids("<|fim_pad|>")
        self.prefix, self.suffix = ids("<|fim_prefix|>"), ids("<|fim_suffix|>")
        self.middle, self.file = ids("<|fim_middle|>"), ids("<|file_sep|>")

    def encode(self, documents: list[dict], length: int):
        """Yields the tokens of each document that fits, trimmed to the row."""
        texts = []
        for document in documents:
            texts += [self.header_text(document), document["prefix"]]
            texts += [document["prefix"] + document["middle"], document["middle"]]
            texts.append(document["suffix"])
            texts += [f"{path}\n{text}" for path, text in document["neighbours"]]
        encoded = iter(self.tokenizer.encode_batch(texts, add_special_tokens=False))
        for document in documents:
            marks = document["marks"]
            at_middle = len(document["prefix"])
            at_suffix = at_middle + len(document["middle"])
            header = next(encoded).ids
            prefix, joined = self.marked(next(encoded), marks), self.marked(next(encoded), marks)
            middle = self.marked(next(encoded), marks[at_middle:])
            suffix = self.marked(next(encoded), marks[at_suffix:])
            opening = []
            for _ in document["neighbours"]:
                opening += [self.file, *next(encoded).ids]
            if document["path"]:
                opening += [self.file, *header]
            split = (prefix, middle)
            if document["joined"] and document["spm"]:
                split = self.split(joined, prefix)
            tokens = self.document(document, opening, *split, suffix, length)
            if tokens:
                yield tokens

    @staticmethod
    def marked(encoding, marks: bytes) -> list[int]:
        """The ids, each marked that ends in a comment."""
        return [
            token | (COMMENT if marks[end - 1] else 0)
            for token, (_, end) in zip(encoding.ids, encoding.offsets)
        ]

    @staticmethod
    def header_text(document: dict) -> str:
        return f"{document['path']}\n" if document["path"] else ""

    @staticmethod
    def split(joined: list[int], prefix: list[int]) -> tuple[list[int], list[int]]:
        """The joined text where its tokens stop being the prefix's: the cursor, or a token before."""
        same = 0
        while same < min(len(joined), len(prefix)) and joined[same] == prefix[same]:
            same += 1
        return joined[:same], joined[same:]

    def document(self, document, opening, prefix, middle, suffix, length) -> list[int] | None:
        if document["plain"]:
            room = length - len(opening) - 1
            body = (prefix + middle + suffix)[:max(0, room)]
            return opening + body + [self.end] if len(body) > 16 else None
        marked = [token | MIDDLE for token in [*middle, self.end]]
        room = length - len(opening) - len(marked) - 3
        if room < length // 8:
            return None
        suffix = suffix[:room // 2]
        kept = room - len(suffix)
        prefix = prefix[max(0, len(prefix) - kept):]
        if document["spm"]:
            fim = [self.prefix, self.suffix, *suffix, self.middle, *prefix]
        else:
            fim = [self.prefix, *prefix, self.suffix, *suffix, self.middle]
        return opening + fim + marked


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes rows of FIM documents.")
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True)
    parser.add_argument("--plan", default="512=6,1024=11,2048=11", help="LENGTH=MILLION TOKENS,...")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    documents = Documents(options.data / "corpus.jsonl", options.seed)
    encoder = Encoder(options.tokenizer)
    for length, millions in (entry.split("=") for entry in options.plan.split(",")):
        length, wanted = int(length), float(millions) * 1e6
        packer, part = Packer(length, encoder.pad), 0
        while wanted > 0:
            drawn = [documents.draw(length) for _ in range(DOCUMENTS_AT_ONCE)]
            for tokens in encoder.encode(drawn, length):
                packer.add(tokens)
            made = len(packer.rows) * length
            if made >= min(wanted, PART_TOKENS):
                rows = numpy.stack(packer.rows)
                path = options.data / f"rows-{length}-{part:03}.npz"
                numpy.savez_compressed(path, rows=rows)
                padding = (rows == encoder.pad).mean()
                middle = (rows >= MIDDLE).mean()
                print(path.name, rows.shape, f"padding {padding:.3f}, middle {middle:.3f}", flush=True)
                packer.rows, part, wanted = [], part + 1, wanted - made


if __name__ == "__main__":
    main()
