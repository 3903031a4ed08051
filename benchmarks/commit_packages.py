"""How long `rfe commit packages X` takes against `tar xf X` (aim: at most 0.1).

usage: python benchmarks/commit_packages.py COMMIT.TAR [--repeat N] [--json]

The two are measured in turn, and the medians compared. The tar file is read once before, so that
both find it in the page cache; the files that tar writes are removed outside the measurement.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from rfe_helpers.core import run


def measure(tar: Path, repeat: int) -> dict[str, float]:
    """The medians in seconds, their ratio, and the number of packages."""
    listing: list[float] = []
    unpacking: list[float] = []
    packages = 0
    command = [Path(sys.executable).with_name("rfe"), "commit", "packages", tar]
    run.run(["md5sum", tar])  # to have it in the page cache
    with tempfile.TemporaryDirectory(dir=tar.parent) as scratch:
        target = Path(scratch) / "unpacked"
        for _ in range(repeat):
            began = time.perf_counter()
            packages = len(run.run(command).stdout.splitlines())
            listing.append(time.perf_counter() - began)
            target.mkdir()
            began = time.perf_counter()
            run.run(["tar", "xf", tar, "-C", target])
            unpacking.append(time.perf_counter() - began)
            shutil.rmtree(target)
    if not packages:
        raise SystemExit(f"{tar} lists no packages: nothing was measured")
    ours, plain = statistics.median(listing), statistics.median(unpacking)
    return {
        "packages": packages,
        "rfe_commit_packages": ours,
        "tar_xf": plain,
        "ratio": ours / plain,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("tar", type=Path, help="a commit.tar")
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = measure(arguments.tar.absolute(), arguments.repeat)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        print(
            f"{figures['packages']} packages in {figures['rfe_commit_packages']:.3f} s; "
            f"tar xf {figures['tar_xf']:.3f} s; ratio {figures['ratio']:.3f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
