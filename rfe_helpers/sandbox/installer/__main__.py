"""`python -m rfe_helpers.sandbox.installer --cache DIR`: make the boot ISO, print its path."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rfe_helpers.sandbox.build.standalone import build_alone
from rfe_helpers.sandbox.installer import iso

SECONDS = 1800


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each stage and, as the last one, the path of the ISO; return the status."""
    parser = argparse.ArgumentParser(prog="rfe_helpers.sandbox.installer", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="directory for the ISO")
    return build_alone(parser.parse_args(arguments).cache, "boot-iso", SECONDS, iso.boot_iso)


if __name__ == "__main__":
    sys.exit(main())
