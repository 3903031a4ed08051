"""`python -m rfe_helpers.sandbox.base_image --cache DIR`: make the base image for bootable
containers, print the path of its archive."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rfe_helpers.sandbox.build.base_image import base_image
from rfe_helpers.sandbox.build.standalone import build_alone

SECONDS = 1800


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each stage and, as the last one, the path; return the status."""
    parser = argparse.ArgumentParser(prog="rfe_helpers.sandbox.base_image", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, help="directory for the image")
    return build_alone(parser.parse_args(arguments).cache, "edge-base", SECONDS, base_image)


if __name__ == "__main__":
    sys.exit(main())
