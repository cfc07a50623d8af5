#!/usr/bin/env python3
"""Writes what the corpus was made of as a page.

    sources.py DATA/sources.json > ../default/SOURCES.md
"""

import json
import sys

HEAD = """# Sources of the embedded model's training text

Files under MIT, Apache-2.0, BSD or ISC licences, as the licence files at the top of each repository say, and the standard libraries of CPython and Go under their own. Of each at most so many characters as `../training/collect.py` says by default, files in random order, without vendored, generated and duplicated ones. The model goes on from the first embedded one, which read what [SOURCES-first.md](SOURCES-first.md) lists.

| source | commit | licence | files | characters |
|---|---|---|---|---|"""


def row(source: dict) -> str:
    commit = source.get("commit", "")[:12] or "as named"
    return (f"| {source['name']} | {commit} | {source['license']} | {source['files']:,} "
            f"| {source['chars']:,} |")


def main() -> None:
    with open(sys.argv[1]) as file:
        sources = [source for source in json.load(file) if source["files"]]
    sources.sort(key=lambda source: -source["chars"])
    print(HEAD)
    print("\n".join(row(source) for source in sources if not source["held_out"]))
    print("\nHeld out whole, for the evaluation:\n")
    print("| source | commit | licence | files | characters |\n|---|---|---|---|---|")
    print("\n".join(row(source) for source in sources if source["held_out"]))


if __name__ == "__main__":
    main()
