"""What the checks of all Python clients share."""

import time
import urllib.request

# From the broken connection to the free slot.
FREED_WITHIN_SECONDS = 1.0


def metrics(base):
    """Sums of all series by metric name."""
    sums = {}
    with urllib.request.urlopen(f"{base}/metrics", timeout=10) as reply:
        for line in reply.read().decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{", 1)[0]
                sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def is_equal(is_, expected, what):
    assert is_ == expected, f"{what} is {is_!r}, not {expected!r}"


def breaks_off(base, stream):
    """Leaves a stream after a few parts, and waits until its slot is free."""
    before = metrics(base)["weir_cancelled_total"]
    for heard, _ in enumerate(stream):
        if heard == 3:
            break
    assert metrics(base)["weir_slots_used"] == 1, "the stream ended by itself"
    stream.close()
    deadline = time.monotonic() + FREED_WITHIN_SECONDS
    while (now := metrics(base))["weir_slots_used"] or now["weir_cancelled_total"] == before:
        assert time.monotonic() < deadline, f"slots used {now['weir_slots_used']} after 1 s"
        time.sleep(0.01)
    is_equal(now["weir_cancelled_total"], before + 1, "weir_cancelled_total")


def run(checks):
    """One line for each; the exit status says whether all passed."""
    failed = 0
    for check in checks:
        try:
            check()
            print(f"ok {check.__name__}", flush=True)
        except Exception as why:
            failed += 1
            print(f"FAILED {check.__name__}: {type(why).__name__}: {why}", flush=True)
    return 1 if failed else 0
