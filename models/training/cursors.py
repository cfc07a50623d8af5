"""Where people ask for a completion: a cursor in a file and the text that belongs there."""

import random

import comments

# What a cut is, by its chance.
KINDS = {"line": 0.52, "block": 0.20, "new lines": 0.10, "call": 0.12, "span": 0.06}
LINES_MAX = 10
MIDDLE_CHARS_MAX = 800
SPAN_CHARS_MAX = 200
TRIES = 6
# How often a cursor in a comment is passed over: people ask for code.
PASSES_COMMENT = 0.75
CLOSES = {"(": ")", "[": "]", "{": "}"}


def cut(rng: random.Random, text: str) -> tuple[str, str, str] | None:
    """Prefix, middle and suffix of a text; None: it has no line to complete."""
    starts = line_starts(text)
    for _ in range(TRIES):
        at = rng.randrange(len(starts))
        start, end = line_span(text, starts, at)
        line = text[start:end].strip()
        if not line or (line.startswith(comments.STARTS) and rng.random() < PASSES_COMMENT):
            continue
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        span = FIND[kind](rng, text, starts, at)
        if span and span[0] < span[1] <= span[0] + MIDDLE_CHARS_MAX:
            return text[:span[0]], text[span[0]:span[1]], text[span[1]:]
    return None


def line_starts(text: str) -> list[int]:
    starts = [0]
    while (newline := text.find("\n", starts[-1])) >= 0:
        starts.append(newline + 1)
    return starts


def line_span(text: str, starts: list[int], at: int) -> tuple[int, int]:
    end = starts[at + 1] - 1 if at + 1 < len(starts) else len(text)
    return starts[at], end


def indent_of(text: str, span: tuple[int, int]) -> int:
    line = text[span[0]:span[1]]
    return len(line) - len(line.lstrip())


def column(rng: random.Random, text: str, span: tuple[int, int]) -> int:
    """A place in a line: where it begins, where a word does, or anywhere."""
    first = span[0] + indent_of(text, span)
    how = rng.random()
    if how < 0.2:
        return first
    if how < 0.6:
        words = [
            at for at in range(first + 1, span[1])
            if text[at].isalnum() != text[at - 1].isalnum() or text[at - 1] in "([{."
        ]
        if words:
            return rng.choice(words)
    return rng.randint(first, max(first, span[1] - 1))


def rest_of_line(rng, text, starts, at):
    span = line_span(text, starts, at)
    return column(rng, text, span), span[1]


def block_end(rng, text, starts, at, last_max: int) -> int:
    """The end of the lines below that are further in than this one, and of the line that closes
    them; of at most so many lines."""
    own = indent_of(text, line_span(text, starts, at))
    last = at
    while last + 1 < len(starts) and last < last_max:
        span = line_span(text, starts, last + 1)
        line = text[span[0]:span[1]]
        if line.strip() and indent_of(text, span) <= own:
            if line.strip()[0] in ")]}" and indent_of(text, span) == own:
                last += 1
            break
        last += 1
    while last > at and not text[slice(*line_span(text, starts, last))].strip():
        last -= 1
    return line_span(text, starts, last)[1]


def block(rng, text, starts, at):
    span = line_span(text, starts, at)
    return column(rng, text, span), block_end(rng, text, starts, at, at + rng.randint(1, LINES_MAX))


def new_lines(rng, text, starts, at):
    """From the end of a line over the next ones that are no further out."""
    if at + 1 >= len(starts):
        return None
    own = indent_of(text, line_span(text, starts, at))
    last, most = at, at + rng.randint(1, LINES_MAX // 2)
    while last + 1 < len(starts) and last < most:
        span = line_span(text, starts, last + 1)
        if text[span[0]:span[1]].strip() and indent_of(text, span) < own:
            break
        last += 1
    return line_span(text, starts, at)[1], line_span(text, starts, last)[1]


def call(rng, text, starts, at):
    """From inside a bracket of the line to where that closes, the rest of the line being there."""
    start, end = line_span(text, starts, at)
    line, pairs, opened = text[start:end], [], []
    for offset, char in enumerate(line):
        if char in CLOSES:
            opened.append((offset, CLOSES[char]))
        elif opened and char == opened[-1][1]:
            pairs.append((opened.pop()[0] + 1, offset))
    pairs = [pair for pair in pairs if pair[1] - pair[0] >= 2]
    if not pairs:
        return None
    first, last = rng.choice(pairs)
    return start + (first if rng.random() < 0.6 else rng.randrange(first, last)), start + last


def any_span(rng, text, starts, at):
    first = column(rng, text, line_span(text, starts, at))
    return first, min(len(text), first + rng.randint(1, SPAN_CHARS_MAX))


FIND = {
    "line": rest_of_line, "block": block, "new lines": new_lines, "call": call, "span": any_span,
}


def last_lines(text: str, chars: int) -> str:
    """The end of a text, whole lines of at most so many characters."""
    if len(text) <= chars:
        return text
    newline = text.find("\n", len(text) - chars)
    return text[newline + 1:] if newline >= 0 else text[len(text) - chars:]
