"""The short path of the workbook as an earlier commit runs it and as this checkout does, in turn.

    .venv/bin/python benchmarks/short_path.py COMMIT            half an hour without KVM
    .venv/bin/python benchmarks/short_path.py COMMIT --rounds 3

Both have a cache of their own, which `rfe cache` fills before the first round, and a new lab in
each round, so that the runs differ in their code alone. Prints the medians and their ratios in
Markdown: the whole run, each notebook, and what `rfe run` reports as it waits (boots, installation,
composes). The last row is the processor time of the workbook's own processes (rfe, the notebooks'
kernels, the sandbox service): the rest is spent in mmdebstrap, ostree, podman, QEMU and the like,
or waiting for them. The host should be idle. Each has a virtual environment of its own, with the
packages of this checkout's: install what an earlier commit needs beside them (`pip install tomlkit`
for those before 2026-11-28).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
import venv
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
RFE = "import sys; from rfe_helpers.cli.main import main; sys.exit(main())"
# "✔ Installing edge-1 · 2:53 · done", as the last line of a wait.
WAIT = re.compile(r"✔ (.+) · (?:(\d+):)?(\d+):(\d\d) · ")
WHOLE = "the whole run"
OWN = "processor time of its own"
# A part of the command line of each of the workbook's own processes.
OWN_COMMANDS = ("rfe_helpers.cli.main", "rfe_helpers.sandbox", "ipykernel_launcher")
TICKS = os.sysconf("SC_CLK_TCK")


class Side:
    """One of the two: the directory of its code, its cache, and the seconds of each round."""

    def __init__(self, name: str, source: Path, directory: Path) -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self._python = environment(self.directory / "venv", source)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._environment = {**os.environ, "RFE_CACHE": str(self.directory / "cache")}

    def rfe(self, *arguments: str | Path) -> tuple[str, float]:
        """The output of `rfe`, and the seconds of processor time of the workbook's own processes
        while it ran; the first line on stderr says what runs."""
        words = [str(argument) for argument in arguments]
        print(f"{self.name}: rfe {' '.join(words[:2])}", file=sys.stderr, flush=True)
        # Not in a checkout: its code would be imported first.
        own: dict[int, float] = {}
        with (self.directory / "output").open("w+") as output:
            process = subprocess.Popen(
                [self._python, "-c", RFE, *words],
                cwd=self.directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            while process.poll() is None:
                own.update(own_processor_seconds())
                time.sleep(0.2)
            output.seek(0)
            text = output.read()
        if process.returncode != 0:
            raise SystemExit(f"{self.name}: rfe {' '.join(words)} failed:\n{text[-2000:]}")
        return text, sum(own.values())

    def round(self) -> None:
        lab, out = self.directory / "lab", self.directory / "out"
        output, own = self.rfe("run", "--lab", lab, "--out", out)
        summary = json.loads((out / "summary.json").read_text())
        self.rfe("lab", "clean", "--yes", "--lab", lab)
        for notebook in summary["notebooks"]:
            self.seconds[notebook["name"]].append(notebook["seconds"])
        self.seconds[WHOLE].append(summary["seconds"])
        waits: dict[str, float] = defaultdict(float)
        for what, hours, minutes, seconds in WAIT.findall(output):
            waits[what] += int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)
        for what, value in waits.items():
            self.seconds[what].append(value)
        self.seconds[OWN].append(own)


def own_processor_seconds() -> dict[int, float]:
    """User and system time of each of our processes so far, by pid, without its children."""
    seconds = {}
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            command = (directory / "cmdline").read_text().replace("\0", " ")
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if any(name in command for name in OWN_COMMANDS):
            seconds[int(directory.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def environment(directory: Path, source: Path) -> Path:
    """A virtual environment in which `rfe_helpers` is that of `source`; returns its Python. What
    the package starts runs in it, too: kernels, the sandbox's Image Builder."""
    venv.create(directory, with_pip=False)
    (packages,) = directory.glob("lib/python3*/site-packages")
    for name in ("share", "etc"):  # nbconvert's templates, the settings of Jupyter's servers
        (directory / name).symlink_to(Path(sys.prefix) / name)
    # A directory that a .pth file names is not searched for .pth files, such as that of an
    # editable installation.
    (packages / "sides.pth").write_text(f"{source}\n{sysconfig.get_path('purelib')}\n")
    # Its distribution may have had another name.
    name = tomllib.loads((source / "pyproject.toml").read_text())["project"]["name"]
    metadata = packages / f"{name.replace('-', '_')}-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0\n")
    return directory / "bin/python"


def table(before: Side, after: Side) -> str:
    """The medians of what took a second or more on either side."""
    lines = ["| what | before | now | ratio |", "|---|---|---|---|"]
    for what, seconds in before.seconds.items():
        old = statistics.median(seconds)
        new = statistics.median(after.seconds.get(what) or [0])
        if max(old, new) >= 1 and what in after.seconds:
            lines.append(f"| {what} | {old:.0f} s | {new:.0f} s | {new / old if old else 0:.2f} |")
    lines.append("")
    for side in (before, after):
        share = statistics.median(side.seconds[OWN]) / statistics.median(side.seconds[WHOLE])
        lines.append(f"{side.name}: {OWN} is {share:.2f} of {WHOLE}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("commit", help="what to compare with, such as a tag")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    options = parser.parse_args()
    git = ["git", "-C", str(HERE), "worktree"]
    directory = Path(tempfile.mkdtemp(prefix="rfe-benchmark-", dir="/var/tmp"))
    source = directory / "source"
    try:
        subprocess.run([*git, "add", "--quiet", "--detach", source, options.commit], check=True)
        sides = [Side("before", source, directory), Side("now", HERE, directory)]
        for side in sides:
            side.rfe("cache")
        for _ in range(options.rounds):
            for side in sides:
                side.round()
        print(table(*sides))
    finally:
        subprocess.run([*git, "remove", "--force", source], check=False)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
