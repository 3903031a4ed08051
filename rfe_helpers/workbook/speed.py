"""How fast this machine is: a benchmark of a fraction of a second, to scale times that were
measured on another one.

In the cache, for an hour, since it depends on what else runs: speed.json, {"machine": its name and
number of cores, "seconds": of the benchmark, "until": Unix seconds}.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

from rfe_helpers.core import files
from rfe_helpers.lab.cache import cache_directory

# Of the machine of the times in guidance.py: two cores of an AMD EPYC, with nothing else to do.
REFERENCE_SECONDS = 0.043
_HOUR = 3600
_ROUNDS = 7
_DATA = b"".join(b"%d %x;" % (number * number, number) for number in range(40_000))


def slowness() -> float:
    """How many times as long something takes here as on the machine of reference, now that other
    programs are running, too."""
    record = cache_directory() / "speed.json"
    machine = [platform.node(), os.cpu_count()]
    with contextlib.suppress(OSError, ValueError, LookupError):
        known = json.loads(record.read_text())
        if known["machine"] == machine and time.time() < known["until"]:
            return float(known["seconds"]) / REFERENCE_SECONDS
    seconds = benchmark()
    with contextlib.suppress(OSError):  # a cache that belongs to somebody else
        files.write_json(
            record, {"machine": machine, "seconds": seconds, "until": time.time() + _HOUR}
        )
    return seconds / REFERENCE_SECONDS


def benchmark() -> float:
    """The seconds in which two threads compress some text each: a build and an emulated machine
    need two cores. The best of some rounds: other programs come and go."""
    with ThreadPoolExecutor(2) as pool:  # zlib releases the lock of the interpreter
        rounds = []
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            list(pool.map(zlib.compress, [_DATA, _DATA]))
            rounds.append(time.perf_counter() - began)
    return min(rounds)
