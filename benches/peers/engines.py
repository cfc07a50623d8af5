"""Weir and its peers as processes that answer one measurement at a time.

A peer stays loaded and is stopped (SIGSTOP) while weir runs, so that its spinning threads take
nothing from it; weir is a process per measurement. Each is the leader of a session of its own.
"""

import json
import os
import pathlib
import resource
import signal
import subprocess
import time

HERE = pathlib.Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
# A measurement takes seconds; loading 3 GB from a cold disk takes longer.
ANSWER_SECONDS_MAX = 600


class Failed(Exception):
    pass


class Priority:
    """Whether engines run before everybody else's processes; all engines alike."""

    def __init__(self, raised: bool):
        self.raised = raised

    def apply(self) -> None:
        """In the child: nice counts within a session's group, the group's own value between."""
        if self.raised:
            os.setpriority(os.PRIO_PROCESS, 0, -20)
            autogroup = pathlib.Path("/proc/self/autogroup")
            if autogroup.exists():
                autogroup.write_text("-20")


class Weir:
    def __init__(self, binary: pathlib.Path, data: pathlib.Path, threads: int, priority: Priority):
        self.binary, self.data, self.threads, self.priority = binary, data, threads, priority

    def command(self, case) -> list[str]:
        folder = str(model_folder(self.data, case.model))
        threads = ["--threads", str(self.threads)]
        runs = ["--runs", "1", "--json"]
        return [str(self.binary), "bench", *case.weir, "--model", folder, *threads, *runs]

    def measure(self, case) -> dict:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        watch = Watch()
        done = subprocess.run(
            self.command(case),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS_MAX,
            start_new_session=True,
            preexec_fn=self.priority.apply,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[0]
            raise Failed(f"weir bench {' '.join(case.weir)}: {reason}")
        own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.loads(done.stdout) | watch.disturbance(own)

    def version(self) -> str:
        return subprocess.run(
            [self.binary, "--version"], capture_output=True, text=True, check=True
        ).stdout.strip()


class Peer:
    """A process of the line protocol; `ready` is what it says of itself."""

    def __init__(self, command: list[str], threads: int, priority: Priority):
        self.command = command
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # candle's pools ask rayon how many threads there are.
            env=os.environ | {"RAYON_NUM_THREADS": str(threads)},
            start_new_session=True,
            preexec_fn=priority.apply,
        )
        self.ready = self._line()
        self.pause()

    @classmethod
    def of(cls, case, data: pathlib.Path, threads: int, priority: Priority) -> "Peer":
        return cls(peer_command(case, data, threads), threads, priority)

    def measure(self, job: dict) -> dict:
        os.kill(self.process.pid, signal.SIGCONT)
        before, watch = self._cpu_seconds(), Watch()
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self._line()
        disturbance = watch.disturbance(self._cpu_seconds() - before)
        self.pause()
        return answer | disturbance

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()

    def _line(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise Failed(f"{' '.join(self.command)} ended")
        return json.loads(line)

    def _cpu_seconds(self) -> float:
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


class Watch:
    """What the machine did besides the engine measured, as shares of all its cores."""

    def __init__(self):
        self.began, self.busy, self.steal = time.monotonic(), *self._counters()

    def disturbance(self, own_seconds: float) -> dict:
        busy, steal = self._counters()
        room = max((time.monotonic() - self.began) * os.cpu_count(), 1.0 / TICKS)
        others = max(busy - self.busy - own_seconds, 0.0)
        return {"steal_share": (steal - self.steal) / room, "others_share": others / room}

    def _counters(self) -> tuple[float, float]:
        fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
        return (user + nice + system + irq + softirq) / TICKS, steal / TICKS


def model_folder(data: pathlib.Path, model: str) -> pathlib.Path:
    return HERE.parents[1] / "models/default" if model == "default" else data / model


def peer_command(case, data: pathlib.Path, threads: int) -> list[str]:
    gguf = str(data / case.model / "gguf" / f"{case.file}.gguf")
    if case.peer == "llama.cpp":
        python = str(HERE / "venv/bin/python")
        return [python, str(HERE / "llama_bench.py"), gguf, "--threads", str(threads)]
    candle = str(HERE / "candle/target/release/peer-candle")
    if case.file in ("f32", "bf16"):
        return [candle, str(model_folder(data, case.model)), case.file]
    return [candle, gguf]
