#!/usr/bin/env python3
"""Draws the cursors of the evaluation from the held-out repositories: cases.jsonl.

    cases.py --held-out DATA/held-out.jsonl --out cases.jsonl [--each 300]

Of each language so many single lines, from a random column to the line's end, and half as many
blocks of two to six lines. A case is {lang, kind, source, path, prefix, middle, suffix}: the whole
file. Drawn by seed, without any model.
"""

import argparse
import collections
import json
import pathlib
import random

LANGUAGES = ["rust", "python", "typescript", "go"]
LINE_CHARS = range(12, 91)
COMMENTS = ("//", "#", "*", "/*", '"""', "'''")
FILE_LINES_MIN = 30
# Of one file, so that no file decides.
CASES_PER_FILE = 2
BLOCK_LINES = range(2, 7)


def is_test(path: str) -> bool:
    return "test" in path.lower()


def lines_of(text: str) -> list[tuple[int, str]]:
    """(offset, line) of each line."""
    lines, offset = [], 0
    for line in text.split("\n"):
        lines.append((offset, line))
        offset += len(line) + 1
    return lines


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def single_line(rng: random.Random, text: str, lines) -> tuple[int, int] | None:
    offset, line = rng.choice(lines)
    if len(line.strip()) not in LINE_CHARS or line.strip().startswith(COMMENTS):
        return None
    return offset + rng.randint(indent(line), len(line) - 4), offset + len(line)


def block(rng: random.Random, text: str, lines) -> tuple[int, int] | None:
    """From the first line of a body to the last one that is no further out."""
    at = rng.randrange(1, len(lines))
    above, first = lines[at - 1][1], lines[at][1]
    opens = above.rstrip().endswith(("{", ":", "(", "["))
    if not opens or not first.strip() or indent(first) <= indent(above):
        return None
    last = at
    while last + 1 < len(lines):
        line = lines[last + 1][1]
        if line.strip() and indent(line) < indent(first):
            break
        last += 1
    while not lines[last][1].strip():
        last -= 1
    if last - at + 1 not in BLOCK_LINES:
        return None
    return lines[at][0] + indent(first), lines[last][0] + len(lines[last][1])


FIND = {"line": single_line, "block": block}


def draw(rng: random.Random, files: list[dict], kind: str, count: int) -> list[dict]:
    found, of_file, tries = [], collections.Counter(), 0
    while len(found) < count and tries < count * 400:
        tries += 1
        file = rng.choice(files)
        lines = lines_of(file["text"])
        if len(lines) < FILE_LINES_MIN or of_file[file["path"]] >= CASES_PER_FILE:
            continue
        span = FIND[kind](rng, file["text"], lines)
        if span is None:
            continue
        of_file[file["path"]] += 1
        text, (start, end) = file["text"], span
        found.append({
            "lang": file["lang"], "kind": kind, "source": file["source"], "path": file["path"],
            "prefix": text[:start], "middle": text[start:end], "suffix": text[end:],
        })
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws the cursors of the evaluation.")
    parser.add_argument("--held-out", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--each", type=int, default=300, help="single lines of each language")
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    files = collections.defaultdict(list)
    with open(options.held_out) as lines:
        for line in lines:
            file = json.loads(line)
            if not is_test(file["path"]):
                files[file["lang"]].append(file)
    with open(options.out, "w") as out:
        for language in filter(files.get, LANGUAGES):
            for kind, count in (("line", options.each), ("block", options.each // 2)):
                cases = draw(rng, files[language], kind, count)
                print(language, kind, len(cases))
                for case in cases:
                    out.write(json.dumps(case) + "\n")


if __name__ == "__main__":
    main()
