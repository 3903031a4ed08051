"""`python -m rfe_helpers.sandbox.installer --cache DIR`: make the boot ISO, print its path."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox import tree
from rfe_helpers.sandbox.installer import build
from rfe_helpers.wait import Deadline

SECONDS = 1800


def main(arguments: list[str] | None = None) -> int:
    """Print one line per stage, and the path of the ISO as the last; returns the exit status."""
    parser = argparse.ArgumentParser(prog="rfe_helpers.sandbox.installer", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="directory that keeps the ISO")
    cache = parser.parse_args(arguments).cache.expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix="boot-iso-") as directory:
            work = tree.Work(
                directory=Path(directory),
                cache=cache,
                log=cache / "boot-iso.log",
                deadline=Deadline(SECONDS),
                on_stage=lambda pipeline, stage: print(f"{pipeline}: {stage}", flush=True),
            )
            print(build.boot_iso(work))
    except RfeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
