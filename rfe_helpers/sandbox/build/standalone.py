"""A build outside the queue: what the commands that fill the cache have in common."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import RfeError
from rfe_helpers.sandbox.build import tree


def build_alone(
    cache: Path, name: str, seconds: float, action: Callable[[tree.Work], object]
) -> int:
    """Run `action` in a directory of its own below `cache`, made if it is not there; its log is
    `<name>.log` beside it. Prints one line per stage, and what the action returns as the last;
    returns the exit status."""
    cache = cache.expanduser().absolute()
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}-") as directory:
            work = tree.Work(
                directory=Path(directory),
                cache=cache,
                log=cache / f"{name}.log",
                deadline=Deadline(seconds),
                on_stage=lambda pipeline, stage: print(f"{pipeline}: {stage}", flush=True),
            )
            print(action(work))
    except RfeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
