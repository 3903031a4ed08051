"""The rollout model against fifty real clients and a real web server, as figures and a picture.

usage: python benchmarks/fleet_trial.py [--picture FILE]

Real `ostree pull` clients with a small splay pull from a real web server. Its access log and the
time at which each client is ready are compared with the result of `fleet.plan` for the same fleet.
Notebook 90 shows the picture: notebooks/pictures/model-and-trial.png.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rfe_helpers import serve
from rfe_helpers.commit import oci
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.wait import Deadline, wait_for
from rfe_helpers.errors import CommitError
from rfe_helpers.fleet.cost import measure
from rfe_helpers.fleet.plots import STYLES, figure_of
from rfe_helpers.fleet.rollout import Fleet, Plan, Pull, plan
from rfe_helpers.fleet.timer import parse_timer
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve import Site

REF = "debian/13/x86_64/edge"
FILES = 60


def commit(repo: Repo, directory: Path, version: str) -> None:
    """A commit of FILES small files, all different from those of another version."""
    path = directory / f"tree-{version}.tar"
    with tarfile.open(path, "w") as tar:
        directories = ["", "usr", "usr/share"]
        directories += [f"usr/share/d{number}" for number in range(6)]
        for name in directories:
            oci.add_directory(tar, f"./{name}")
        for number in range(FILES):
            content = f"{version} {number} ".encode() * 500
            oci.add_file(tar, f"./usr/share/d{number % 6}/f{number}", content)
    repo.commit_tar(path, REF, subject=version, version=version, packages=[], bootable=False)


# A thousand modelled devices for each real one, each with a thousandth of the cost, so that random
# variation does not matter.
_SCALE = 1000


@dataclass(frozen=True)
class Trial:
    """The measurements and the prediction. Times are seconds after the start of the trial.

    Load is counted in windows of `window` seconds: `edges` are their bounds, `measured` the
    requests per second in each. `requests` and `sent` (bytes) are totals of the server's access
    log; `ends` are the times at which clients were ready, in order. `cost` is that of one pull.
    """

    clients: int
    splay: float
    window: float
    cost: Pull
    predicted: Plan
    requests: int
    sent: int
    edges: NDArray[np.float64] = field(repr=False)
    measured: NDArray[np.float64] = field(repr=False)
    ends: NDArray[np.float64] = field(repr=False)

    @property
    def predicted_load(self) -> NDArray[np.float64]:
        """The model's load, averaged over windows that end at each of its steps."""
        steps = round(self.window / self.predicted.step)
        asked = self.predicted.curves["asked"][: int(1.5 * self.splay / self.predicted.step)]
        return np.convolve(asked, np.ones(steps) / steps, mode="valid")

    @property
    def differences(self) -> dict[str, float]:
        """The relative differences of the measurements from the model: 0.1 is 10 % more."""
        pairs = {
            "peak requests per second": (self.measured.max(), self.predicted_load.max()),
            "half of them have it": (np.median(self.ends), self.predicted.half_staged),
            "all of them have it": (self.ends[-1], self.predicted.all_staged),
        }
        return {
            name: float(measured / predicted - 1) for name, (measured, predicted) in pairs.items()
        }


def compare(
    lab: Lab,
    site: Site,
    ref: str,
    installed: Path,
    *,
    clients: int = 50,
    splay: float = 40.0,
    window: float = 10.0,
) -> Trial:
    """Let `clients` pull `ref` from a site that the lab's nginx serves, spread over `splay` s.

    `installed` is a repository with the commit that devices have, at the same ref. The delays are
    spread evenly instead of at random, since fifty clients are too few for that. Raises
    CommitError.
    """
    if site.engine != "nginx":
        raise CommitError("requests are counted in the log of the host's nginx, not of a container")
    log = lab.path("logs", "nginx-access.log")
    cost = measure(site.repo_url, ref, installed=(installed, ref))
    time.sleep(1.5)  # nginx writes its log every second
    before = len(log.read_text().splitlines())
    with tempfile.TemporaryDirectory(prefix="rfe-", dir="/var/tmp") as scratch:
        began, ends = _pull_everywhere(site.repo_url, ref, installed, Path(scratch), clients, splay)
    expected = before + clients * int(cost.requests)
    wait_for(
        lambda: len(log.read_text().splitlines()) >= expected, Deadline(60), "the log is complete"
    )
    lines = [line.split() for line in log.read_text().splitlines()[before:]]
    moments = np.array([float(line[0]) for line in lines]) - began
    edges = np.arange(0, splay + 2 * window, window)
    return Trial(
        clients=clients,
        splay=splay,
        window=window,
        cost=cost,
        predicted=predict(cost, clients, splay, window),
        requests=len(lines),
        sent=sum(int(line[2]) for line in lines),
        edges=edges,
        measured=np.histogram(moments, edges)[0] / window,
        ends=np.sort(ends),
    )


def predict(cost: Pull, clients: int, splay: float, window: float) -> Plan:
    """The plan for such a fleet."""
    timer = parse_timer(f"OnCalendar=minutely\nRandomizedDelaySec={splay}\nAccuracySec=1us")
    small = Pull(
        requests=cost.requests / _SCALE,
        bytes=cost.bytes / _SCALE,
        seconds=cost.seconds,
        check_requests=0,
        check_bytes=0,
    )
    return plan(Fleet(_SCALE * clients, timer), small, horizon=3 * splay, step=window / 100)


def _pull_everywhere(
    url: str, ref: str, installed: Path, directory: Path, clients: int, splay: float
) -> tuple[float, NDArray[np.float64]]:
    """Let every client pull after its delay; returns the start (Unix time) and the ready times."""
    first = Repo(directory / "device-0").init("bare-user")
    first.pull_local(installed, ref)
    first.add_remote("mirror", url)
    for number in range(1, clients):
        shutil.copytree(first.path, directory / f"device-{number}")
    ends: list[float] = []
    began = time.time()

    def device(number: int) -> None:
        time.sleep(max(0.0, began + (number + 0.5) * splay / clients - time.time()))
        run.run(["ostree", "pull", f"--repo={directory / f'device-{number}'}", "mirror", ref])
        ends.append(time.time() - began)

    threads = [threading.Thread(target=device, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(ends) != clients:
        raise CommitError(f"{clients - len(ends)} of {clients} clients could not pull {ref}")
    return began, np.array(ends)


def plot_trial(trial: Trial) -> Figure:
    """The load and the share of updated devices, of the real clients and of the model."""
    figure, axes = figure_of(rows=2)
    steps = trial.predicted.curves["time"]
    load = trial.predicted_load
    middles = steps[: len(load)] + trial.window / 2
    axes[0].plot(middles, load, label="the model", **STYLES[0])
    axes[0].plot(
        (trial.edges[:-1] + trial.edges[1:]) / 2,
        trial.measured,
        label=f"{trial.clients} real clients, every {trial.window:.0f} s",
        **{**STYLES[1], "marker": "o"},
    )
    axes[0].set_ylim(bottom=0)
    axes[0].set_ylabel("requests (1/s)")
    last = int(np.searchsorted(steps, 1.4 * trial.splay))
    axes[1].plot(steps[:last], 100 * trial.predicted.curves["staged"][:last], **STYLES[0])
    share = 100 * np.arange(1, trial.clients + 1) / trial.clients
    axes[1].step(trial.ends, share, where="post", **STYLES[1])
    axes[1].set_ylim(0, 102)
    axes[1].set_ylabel("have the update (%)")
    for subplot in axes:
        subplot.spines[["top", "right"]].set_visible(False)
        subplot.grid(alpha=0.25)
        subplot.set_xlim(left=0)
    axes[0].legend(frameon=False)
    axes[0].set_title(f"The model and a trial with {trial.splay:.0f} s of splay", loc="left")
    axes[1].set_xlabel("time (s)")
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="write the picture to this file, as PNG"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rfe-", dir="/var/tmp") as scratch:
        directory = Path(scratch)
        lab = Lab(directory / "lab", "sandbox")
        try:
            old, content = Repo(directory / "old").init(), directory / "new"
            new = Repo(content / "repo").init()
            commit(old, directory, "1")
            commit(new, directory, "2")
            (content / "compose.json").write_text("{}")
            artifact = directory / "commit.tar"
            with tarfile.open(artifact, "w") as tar:
                tar.add(content, arcname=".")
            trial = compare(lab, serve.publish(lab, artifact), REF, old.path)
        finally:
            lab.clean()
    print(f"{trial.clients} clients, {trial.cost.requests:.0f} requests each, {trial.splay:.0f} s")
    for name, difference in trial.differences.items():
        print(f"{name}: {difference:+.1%} against the model")
    if arguments.picture:
        plot_trial(trial).savefig(arguments.picture, dpi=110, facecolor="white")
    return 0


if __name__ == "__main__":
    sys.exit(main())
