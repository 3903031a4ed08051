"""What container layers cost beside OSTree: requests, bytes and seconds of the same updates.

    .venv/bin/python benchmarks/layers.py           10 to 20 minutes
    .venv/bin/python benchmarks/layers.py --json    also the figures that fleet.layers records

Builds the three real commits of benchmarks/deltas.py: a system, and the same with a small and with
several large packages in addition. A device has the first, and fetches each of the others

- as OSTree objects, and by a static delta, from the lab's web server;
- as a container layer of its own on the layer of the system, from the lab's registry;
- as one base layer, which holds the system and the packages;

over loopback and over a slower link (rfe_helpers.core.link). A time ends when the new tree is a
commit in the device's repository: that of layers has their storing and merging in it, as bootc does
both. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from deltas import build

from rfe_helpers import serve
from rfe_helpers.commit import oci
from rfe_helpers.commit.listing import compare
from rfe_helpers.commit.ostree import Repo
from rfe_helpers.core import run
from rfe_helpers.core.link import FAST, Link, Quality
from rfe_helpers.core.wait import Deadline
from rfe_helpers.fleet import layers
from rfe_helpers.fleet.rollout import Pull
from rfe_helpers.lab.lab import Lab
from rfe_helpers.serve.publication import Publication

# A whole base takes a minute over the second, and ten over the 2 Mbit/s of benchmarks/deltas.py.
LINKS = {"loopback": FAST, "20 Mbit/s, 100 ms": Quality(delay=0.05, rate=20e6 / 8)}
LIMIT = Deadline(6 * 3600)
CONFIG = {"Labels": {"containers.bootc": "1", "ostree.bootable": "1"}}


# container images -----------------------------------------------------------------------------


def export(repo: Repo, commit: str, target: Path) -> Path:
    """The whole tree of a commit as a tar."""
    run.run(["ostree", "export", f"--repo={repo.path}", f"--output={target}", commit])
    return target


def base_layer(tree: Path, target: Path) -> oci.Layer:
    """The layer of a whole tree."""
    return oci.write_layer(target, lambda tar: copy(tree, tar, lambda name: True))


def own_layer(repo: Repo, old: str, new: str, tree: Path, target: Path) -> oci.Layer:
    """The layer that holds only what is new in a commit, with whiteouts for what is gone."""
    change = compare(repo.ls(old), repo.ls(new))
    kept = {path.strip("/") for path in (*change.added, *change.modified)}
    removed = [path for path in map(Path, change.removed) if str(path.parent) not in change.removed]

    def fill(tar: tarfile.TarFile) -> None:
        copy(tree, tar, lambda name: name in kept)
        for path in removed:
            oci.add_file(tar, str(path.with_name(f".wh.{path.name}")).strip("/"), b"")

    return oci.write_layer(target, fill)


def copy(tree: Path, tar: tarfile.TarFile, keep: Callable[[str], bool]) -> None:
    """Copy the entries of a tree whose path is kept; a hard link to another one becomes a file."""
    with tarfile.open(tree) as source:
        for entry in source:
            entry.name = entry.name.removeprefix("./")
            if not keep(entry.name.strip("/")):
                continue
            content = source.extractfile(entry) if entry.isreg() or entry.islnk() else None
            if entry.islnk():
                target = source.getmember(entry.linkname)
                entry.type, entry.size, entry.linkname = tarfile.REGTYPE, target.size, ""
            tar.addfile(entry, content)


# what a device does ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Device:
    """What a device has: a repository with the system, its layer as an OCI layout too."""

    repo: Repo
    layout: Path
    base: str  # the digest of the layer

    @contextmanager
    def copy(self) -> Iterator[Device]:
        """Another device with the same."""
        with tempfile.TemporaryDirectory(dir=self.layout.parent) as scratch:
            repo, layout = Path(scratch, "repo"), Path(scratch, "layout")
            for source, target in ((self.repo.path, repo), (self.layout, layout)):
                shutil.copytree(source, target, copy_function=os.link, symlinks=True)
            yield Device(Repo(repo), layout, self.base)

    def merge(self, digests: list[str]) -> None:
        """One commit of several layers, as bootc makes it; only for layers that one trusts."""
        tree, repo = self.repo.path / "tmp/merged", f"--repo={self.repo.path}"
        checkout = ["ostree", "checkout", repo, "-UH", "--union", "--whiteouts"]
        for digest in digests:
            run.run([*checkout, layers.blob_ref(digest), tree], deadline=LIMIT)
        commit = ["ostree", "commit", repo, "--branch=merged", "--no-bindings", "--parent=none"]
        run.run([*commit, f"--tree=dir={tree}", "--link-checkout-speedup"], deadline=LIMIT)


def by_ostree(device: Device, port: int, ref: str, quality: Quality, deltas: bool) -> Pull:
    """The cost of an update from a web server."""
    with device.copy() as copy, Link(port, quality) as link:
        copy.repo.add_remote("edge", f"http://127.0.0.1:{link.port}/repo/")
        seconds = copy.repo.pull_seconds("edge", ref, deltas=deltas)
        requests, size = link.requests, link.received
        copy.repo.pull("edge", ref)
        return Pull(requests, size, seconds, link.requests - requests, link.received - size)


def by_layers(device: Device, registry: serve.Registry, image: str, quality: Quality) -> Pull:
    """The cost of an update from a registry."""
    digests = list(layers.contents(registry, image))
    with device.copy() as copy, Link(registry.port, quality) as link:
        began = time.monotonic()
        layers.fetch(f"127.0.0.1:{link.port}/{image}", copy.layout, LIMIT)
        layers.store(copy.layout, copy.repo, [d for d in digests if d != device.base], LIMIT)
        copy.merge(digests)
        seconds = time.monotonic() - began
        requests, size = link.requests, link.received
        name = f"docker://127.0.0.1:{link.port}/{image}"
        run.run(["skopeo", "inspect", "--raw", "--tls-verify=false", name])
        return Pull(requests, size, seconds, link.requests - requests, link.received - size)


# the run --------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--small", default="tmux", help="packages of the small update")
    parser.add_argument("--large", default="git vim", help="packages of the large update")
    parser.add_argument("--json", action="store_true", help="also print the figures as JSON")
    options = parser.parse_args()
    packages = {"system": "", "small": options.small, "large": options.large}
    with tempfile.TemporaryDirectory(prefix="rfe-layers-", dir="/var/tmp") as name:
        lab = Lab(Path(name, "lab"), "sandbox")
        try:
            costs = measure_all(lab, Path(name), packages)
        finally:
            lab.clean(serve.remove_container)
    if options.json:
        print(json.dumps({name: asdict(cost) for name, cost in costs.items()}, indent=2))


def measure_all(lab: Lab, directory: Path, packages: dict[str, str]) -> dict[str, Pull]:
    """The cost of each update over each link in each form; prints a row for each."""
    versions = [run.run([tool, "--version"]).stdout.split() for tool in ("ostree", "skopeo")]
    print(f"ostree {versions[0][2].strip(chr(39))}, skopeo {versions[1][2]}")
    repo, commits = build(lab, packages)
    registry = serve.registry.start(lab)
    push_images(registry, directory, repo, commits)
    device = a_device(directory, registry, repo, commits["system"])
    costs = {}
    print("| update | link | fetched as | requests | MB | seconds |\n|---|---|---|---|---|---|")
    for update in ("small", "large"):
        port = publish(lab, repo, commits, update)
        for link, quality in LINKS.items():
            ref = lab.profile.ostree.ref
            rows = {
                layers.OBJECTS: by_ostree(device, port, ref, quality, deltas=False),
                layers.DELTA: by_ostree(device, port, ref, quality, deltas=True),
                layers.OWN_LAYER: by_layers(device, registry, f"edge/os:{update}", quality),
                layers.BASE_LAYER: by_layers(device, registry, f"edge/os:{update}-base", quality),
            }
            for form, cost in rows.items():
                costs[f"{update}, {link}, {form}"] = cost
                print(
                    f"| {update} (`{packages[update]}`) | {link} | {form} | {cost.requests:.0f} "
                    f"| {cost.bytes / 1e6:.2f} | {cost.seconds:.1f} |",
                    flush=True,
                )
    return costs


def push_images(
    registry: serve.Registry, directory: Path, repo: Repo, commits: dict[str, str]
) -> None:
    """Push edge/os with the tags system, small, small-base, large, large-base."""
    base = base_layer(export(repo, commits["system"], directory / "system.tar"), directory / "base")
    images = {"system": [base]}
    for update in ("small", "large"):
        tree = export(repo, commits[update], directory / f"{update}.tar")
        own = own_layer(repo, commits["system"], commits[update], tree, directory / update)
        images[update] = [base, own]
        images[f"{update}-base"] = [base_layer(tree, directory / f"{update}-base")]
        tree.unlink()
    archive = directory / "image.tar"
    for tag, image in images.items():
        oci.write_archive(archive, image, CONFIG, created_by="benchmarks/layers.py")
        registry.push(archive, f"edge/os:{tag}")
        sizes = " + ".join(f"{layer.size / 1e6:.2f}" for layer in image)
        print(f"<!-- edge/os:{tag}: {sizes} MB -->", flush=True)


def a_device(directory: Path, registry: serve.Registry, repo: Repo, commit: str) -> Device:
    """A device that has the system, as a commit and as an image."""
    device, layout = Repo(directory / "device").init("bare-user"), directory / "layout"
    device.pull_local(repo.path, commit)
    layers.fetch(f"{registry.address}/edge/os:system", layout, LIMIT)
    (base,) = layers.contents(registry, "edge/os:system")
    layers.store(layout, device, [base], LIMIT)
    return Device(device, layout, base)


def publish(lab: Lab, repo: Repo, commits: dict[str, str], update: str) -> int:
    """Publish the system, then an update of it with a static delta; returns the site's port."""
    ref, publication = lab.profile.ostree.ref, Publication(lab.path("www", update))
    for name in ("system", update):
        repo.set_ref(ref, commits[name])
        publication.publish(repo.path, ref, delta="always")
    return serve.publish(lab, publication.repo.path).port


if __name__ == "__main__":
    main()
