"""The whole life of an edge system as commands of a release, without this package.

The prose is in by-hand.md; what fills it in comes from the release's profile and from the functions
that this package makes its own commands with. `python -m rfe_helpers.workbook.by_hand` prints the
page as docs/by-hand.md.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from rfe_helpers.build import provision
from rfe_helpers.build.blueprint import Blueprint, PackageSpec, to_toml
from rfe_helpers.build.composer_cli import composer_cli
from rfe_helpers.core.journal import ApiRequest
from rfe_helpers.fleet import description
from rfe_helpers.fleet.description import Device
from rfe_helpers.install import kickstart, mkksiso
from rfe_helpers.install.media import BootIso
from rfe_helpers.lab import profile
from rfe_helpers.lab.profile import Profile
from rfe_helpers.machine import cloudinit, guest
from rfe_helpers.machine.qemu import VmSpec, typed_argv
from rfe_helpers.serve.with_podman import IMAGE

RELEASE = "rhel-9.6"
URL = "http://10.0.2.2:8000/repo/"
_ID = "00000000-0000-4000-8000-000000000000"
_KEY = "$(cat ~/.ssh/id_ed25519.pub)"


class _Page(Template):
    """A template whose variables begin with @, since shell lines are full of $; @@ is a plain @."""

    delimiter = "@"


def blueprints(release: Profile) -> dict[str, Blueprint]:
    """The blueprints of the page, by the name of their file."""
    return {
        "edge.toml": Blueprint("edge", "Our edge devices", "0.0.1", (PackageSpec("tmux"),)),
        "update.toml": Blueprint(
            "edge", "Our edge devices", "0.0.2", (PackageSpec("jq"), PackageSpec("tmux"))
        ),
        "installer.toml": Blueprint("installer", "Installs edge devices", "0.0.1"),
    }


def document(name: str = RELEASE) -> str:
    """The page for a release, in Markdown."""
    release = profile.load(name)
    types, ostree, container = release.types, release.ostree, release.container
    template = (resources.files("rfe_helpers.workbook") / "by-hand.md").read_text()
    texts = {name.partition(".")[0]: to_toml(b) for name, b in blueprints(release).items()}
    values = {
        "title": release.title,
        "ref": ostree.ref,
        "remote": ostree.remote,
        "portal": release.media.portal,
        "guest_image": release.media.guest_image,
        "boot_iso": release.media.boot_iso,
        "port": container.port,
        "web_root": container.web_root,
        "mirror": IMAGE,
        "grammar": release.kickstart.version,
        "pick_kickstart": f"inst.ks={URL.removesuffix('repo/')}edge.ks",
        "steps": "\n".join(_install_lines(release)),
        "edge": texts["edge"].rstrip(),
        "update": texts["update"].rstrip(),
        "installer": texts["installer"].rstrip(),
        "types": _cli("GET", f"v1/compose/types?distro={release.distro}"),
        "status": _cli("GET", "status"),
        "list": _cli("GET", "v1/blueprints/list"),
        "depsolve": _cli("GET", "v1/blueprints/depsolve/edge"),
        "compose_status": _cli("GET", "v1/compose/status/*"),
        "log": _cli("GET", f"v1/compose/log/{_ID}"),
        "image": _cli("GET", f"v1/compose/image/{_ID}"),
        "start": _start("edge", types.served),
        "start_commit": _start("edge", types.commit),
        "start_update": _start("edge", types.served, ref=ostree.ref, url=URL),
        "start_installer": _start("installer", types.installer, ref=ostree.ref, url=URL),
        **_guest(),
        **_installation(release),
        "fleet": description.post(Device(image=description.DEMO_IMAGE)).rstrip(),
    }
    return _Page(template).substitute(values)


def _install_lines(release: Profile) -> Iterable[str]:
    for step in provision.steps(release, console_for_root=True):
        yield from (f"# {step.title}: {step.reason}", step.command)


def _cli(method: str, path: str, body: str = "") -> str:
    line = composer_cli(ApiRequest("/run/weldr/api.socket", method, f"/api/{path}", body))
    return line.replace(_ID, '"$ID"')


def _start(blueprint: str, kind: str, **ostree: str) -> str:
    body: dict[str, Any] = {"blueprint_name": blueprint, "compose_type": kind, "ostree": ostree}
    return _cli("POST", "v1/compose", json.dumps(body))


def _guest() -> dict[str, str]:
    spec = VmSpec(
        "builder",
        disk=Path("builder.qcow2"),
        memory_mib=4096,
        seed=Path("seed.iso"),
        forwards=((2222, 22), (9091, 9090)),
    )
    hashed = f"$(openssl passwd -6 {guest.PASSWORD})"
    return {
        "user_data": cloudinit.user_data(password_hash=hashed, ssh_key=_KEY).rstrip(),
        "meta_data": cloudinit.meta_data("builder-1", "builder").rstrip(),
        "seed": shlex.join(cloudinit.seed_argv(Path("seed"), Path("seed.iso"))),
        "guest": _folded(typed_argv(spec)),
    }


def _installation(release: Profile) -> dict[str, str]:
    hashed = "$(openssl passwd -6 edge)"
    text = kickstart.render(release, url=URL, user="core", password_hash=hashed, ssh_key=_KEY)
    iso = Path(release.media.boot_iso)
    disk, where = Path("disk.qcow2"), f"{URL.removesuffix('repo/')}edge.ks"
    by_menu = VmSpec("edge-1", disk=disk, memory_mib=2048, cdrom=iso, reboots=False)
    direct = VmSpec(
        "edge-1",
        disk=disk,
        memory_mib=2048,
        cdrom=iso,
        kernel=Path("vmlinuz"),
        initrd=Path("initrd.img"),
        append=BootIso(iso, release.iso.label, 0).arguments(where),
        reboots=False,
    )
    installed = VmSpec("edge-1", disk=disk, memory_mib=2048, forwards=((2223, 22),))
    command = mkksiso.argv("--ks", Path("edge.ks"), iso, Path("edge.iso"))
    return {
        # Without the comment at its top, which speaks of this package.
        "kickstart": text.partition("\n\n")[2].rstrip(),
        "by_menu": _folded(typed_argv(by_menu)),
        "direct": _folded(typed_argv(direct)),
        "installed": _folded(typed_argv(installed)),
        "mkksiso": shlex.join(map(str, command)),
    }


def _folded(argv: list[str]) -> str:
    """A long command line with one option in each line."""
    text = argv[0]
    for word in argv[1:]:
        text += f" \\\n    {word}" if word.startswith("-") else f" {shlex.quote(word)}"
    return text


if __name__ == "__main__":
    print(document(), end="")
