"""Time and memory of the rollout model, for one million and for ten million devices over 7 days.

usage: python benchmarks/fleet.py [--json]

Aim for one million: at most 10 s and 2 GiB on two cores. Each size runs in its own process, so that
the peak memory is its own; imports are included.
"""

from __future__ import annotations

import argparse
import json
import sys

from rfe_helpers.core import run

SIZES = (1_000_000, 10_000_000)
_PROGRAM = """
import json, resource, sys, time
began = time.perf_counter()
from rfe_helpers.fleet import DAY, Fleet, Mirror, Pull, parse_timer, plan
fleet = Fleet(
    int(sys.argv[1]),
    parse_timer("OnBootSec=1h\\nOnUnitInactiveSec=1d\\nRandomizedDelaySec=6h"),
    off=0.1, off_seconds=2 * DAY, cut=0.05, cut_at=DAY / 2,
    rollout=((0.0, 0.0), (2 * DAY, 1.0)),
)
result = plan(fleet, Pull(requests=30, bytes=10e6), Mirror(requests=1000 * fleet.devices / 1e6))
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"devices": fleet.devices, "seconds": time.perf_counter() - began,
                  "memory": memory, "all_staged_days": result.all_staged / DAY}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = [
        json.loads(run.run([sys.executable, "-c", _PROGRAM, str(size)]).stdout) for size in SIZES
    ]
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        for size in figures:
            print(
                f"{size['devices']:>10,} devices over 7 days: {size['seconds']:.2f} s, "
                f"{size['memory'] / 2**30:.2f} GiB (all have the update after "
                f"{size['all_staged_days']:.1f} days)"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
