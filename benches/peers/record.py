"""The dated record: every measurement as a line of JSON, and a page that people read."""

import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess

import stats


class Record:
    """Appends as it goes, so that a run cut short leaves what it measured."""

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.page = folder / "peers.md"
        self.lines = (folder / "peers.jsonl").open("w")

    def line(self, **fields) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.lines.write(json.dumps({"time": now, **fields}) + "\n")
        self.lines.flush()

    def write_page(self, header: list[str], rows: list["Row"], missing: list[str]) -> None:
        table = [HEADINGS, "|---" * (HEADINGS.count("|") - 1) + "|", *map(Row.markdown, rows)]
        failures = [f"- {row.case.name}: {reason}" for row in rows for reason in row.failures()]
        verdict = ["", "**This record fails:**", "", *failures] if failures else []
        if missing:
            verdict += ["", "Not measured:", "", *[f"- {reason}" for reason in missing]]
        commands = ["", "Commands:", "", *[row.commands() for row in rows]]
        text = "\n".join([*header, "", *table, *verdict, *commands]) + "\n"
        self.page.write_text(text)


HEADINGS = (
    "| case | context | weir t/s | peer t/s | ratio (95 %) | goal | share of bandwidth, weir / peer "
    "| pairs (dropped) | same ids |"
)


class Row:
    """A case measured: pairs of answers (weir's, the peer's), adjacent in time."""

    def __init__(self, case, job: dict, ready: dict):
        self.case, self.job, self.ready = case, job, ready
        self.pairs: list[tuple[dict, dict]] = []
        self.dropped = 0

    def ratios(self) -> list[float]:
        return [w["tokens_per_second"] / p["tokens_per_second"] for w, p in self.pairs]

    def failures(self) -> list[str]:
        """What makes the numbers worthless, whatever they are."""
        reasons = []
        if len({weir["token_hash"] for weir, _ in self.pairs}) > 1:
            reasons.append("weir's tokens differ from run to run")
        for name, share in zip(("weir", "the peer"), self.shares()):
            if share is not None and share > 1.0:
                reasons.append(f"{name} at {share:.2f} of the bandwidth: the probe reads too little")
        return reasons

    def shares(self) -> tuple[float | None, float | None]:
        """Of the bandwidth that weir's probe measured beside each pair."""
        if self.case.weir[0] == "prefill":
            return None, None
        weir = statistics.median(weir["roofline_share"] for weir, _ in self.pairs)
        if "bytes_per_token" not in self.pairs[0][1]:
            return weir, None
        peer = statistics.median(
            peer["tokens_per_second"] * peer["bytes_per_token"] / (weir["bandwidth_gbps"] * 1e9)
            for weir, peer in self.pairs
        )
        return weir, peer

    def markdown(self) -> str:
        low, high = stats.interval(self.ratios())
        ratio = f"{statistics.median(self.ratios()):.2f} ({low:.2f} to {high:.2f})"
        shares = " / ".join("-" if share is None else f"{share:.2f}" for share in self.shares())
        same = self.pairs[0][0]["token_hash"] == self.pairs[0][1]["token_hash"]
        cells = [
            self.case.name,
            str(self.case.context()),
            spread([weir["tokens_per_second"] for weir, _ in self.pairs]),
            spread([peer["tokens_per_second"] for _, peer in self.pairs]),
            ratio,
            "-" if self.case.goal is None else f">= {self.case.goal}",
            shares,
            f"{len(self.pairs)} ({self.dropped})",
            "yes" if same else "no",
        ]
        return "| " + " | ".join(cells) + " |"

    def commands(self) -> str:
        weir = f"`weir bench {' '.join(self.case.weir)} --model {self.case.model}`"
        peer = f"{self.ready['engine']} {self.ready['model']} ({self.ready['weights']}) `{json.dumps(self.job)}`"
        return f"- {self.case.name}: {weir}; {peer}"


def spread(figures: list[float]) -> str:
    middle = statistics.median(figures)
    return f"{figure(middle)} ({figure(min(figures))} to {figure(max(figures))})"


def figure(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.1f}"


def header(args, weir_version: str, peers: list[dict]) -> list[str]:
    """Machine, versions and conditions: what somebody else must match to compare."""
    today = datetime.date.today().isoformat()
    priority = "raised above other processes" if args.raise_priority else "normal"
    lines = [
        f"# {today}, {processor()}, {os.cpu_count()} cores, beside its peers",
        "",
        f"Linux {platform.release()}; {weir_version} ({commit()}, {rustc()}); "
        f"{args.threads} threads for every engine; priority {priority}; "
        f"busy loops beside the engines: {args.busy}; pairs dropped where others took more than "
        f"{args.others_max:.0%} of the machine.",
        "Medians, lowest and highest in brackets; a ratio is the median of per-pair ratios, weir "
        "over peer, with the 95 % interval of the bootstrap.",
    ]
    if args.note:
        lines += ["", args.note]
    systems = sorted({f"- {ready['engine']}: {ready['version']}; {system(ready)}" for ready in peers})
    return [*lines, "", *systems]


def system(ready: dict) -> str:
    return ready.get("system", "target-cpu=native")


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip() + isa_note()
    return platform.machine()


def isa_note() -> str:
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    found = [n for n in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8") if n in flags]
    return f" ({', '.join(found)})"


def commit() -> str:
    here = pathlib.Path(__file__).parent
    show = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(show, capture_output=True, text=True)
    return done.stdout.strip() or "no commit"


def rustc() -> str:
    done = subprocess.run(["rustc", "--version"], capture_output=True, text=True)
    return " ".join(done.stdout.split()[:2])
