"""Which characters of a file are comments, roughly, by language."""

import re

_STRINGS = r'"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
_SLASHES = re.compile(rf"{_STRINGS}|`(?:\\.|[^`\\])*`|(//[^\n]*|/\*.*?\*/)", re.DOTALL)
# A quote in Rust is a character only with another one close behind it: else a lifetime.
_RUST = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\\n])\'|(//[^\n]*|/\*.*?\*/)', re.DOTALL)
_PYTHON = re.compile(rf'("""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|#[^\n]*)|{_STRINGS}')
_BY_LANGUAGE = {"rust": _RUST, "python": _PYTHON}
STARTS = ("//", "#", "*", "/*", '"""', "'''")


def mask(language: str, text: str) -> bytes:
    """One for each character of a comment, or of a string in three quotes; zero for the others."""
    marks = bytearray(len(text))
    for found in _BY_LANGUAGE.get(language, _SLASHES).finditer(text):
        if found[1] is not None:
            marks[found.start(1):found.end(1)] = b"\1" * (found.end(1) - found.start(1))
    return bytes(marks)
