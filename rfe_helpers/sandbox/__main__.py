"""python -m rfe_helpers.sandbox (--socket PATH | --activated) --state DIR [--cache DIR]

The sandbox's Image Builder in the foreground, until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.build import artifacts, base
from rfe_helpers.sandbox.service.packages import Index
from rfe_helpers.sandbox.service.server import leave, serve


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rfe_helpers.sandbox",
        description="An Image Builder for the sandbox: the weldr API on a unix socket.",
    )
    listen = parser.add_mutually_exclusive_group(required=True)
    listen.add_argument("--socket", type=Path, help="path of the socket to listen on")
    listen.add_argument(
        "--activated", action="store_true", help="on the socket that systemd passes"
    )
    parser.add_argument(
        "--state", type=Path, required=True, help="directory for blueprints, the queue and composes"
    )
    parser.add_argument(
        "--cache", type=Path, help="directory that builds share (default: cache in --state)"
    )
    options = parser.parse_args(arguments)
    state: Path = options.state.expanduser().absolute()
    cache: Path = (options.cache or state / "cache").expanduser().absolute()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.WARNING)
    try:
        serve(
            options.socket.expanduser().absolute() if options.socket else None,
            state,
            cache,
            artifacts.build,
            Index(cache),
            base=base.WORDS,
        )
    except RfeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    leave(main())
