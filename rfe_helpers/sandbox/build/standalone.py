"""Builds outside the queue, for the commands that fill the cache."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rfe_helpers.core.wait import Deadline
from rfe_helpers.errors import InputError, RfeError
from rfe_helpers.sandbox.build import tree


def build_alone(
    cache: Path, name: str, seconds: float, action: Callable[[tree.Work], object]
) -> int:
    """Run `action` in a temporary directory below `cache`, which is created if needed; the log is
    `<name>.log` in `cache`. Prints a line for each stage and, as the last one, what the action
    returns. Returns the exit status: 2 for an InputError, 1 for another."""
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
        return 2 if isinstance(error, InputError) else 1
    return 0
