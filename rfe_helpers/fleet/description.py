"""A device that keeps itself current: one description, two ways to configure it; pure.

`customizations` gives the files and services for a blueprint, so that every device built from
it has them; `post` gives a kickstart's %post script (`edge2.ks`) that puts the same into one
device when it is installed.

From rpm-ostreed.conf(5), systemd.timer(5), podman-systemd.unit(5), podman-auto-update(1) and
containers-registries.conf(5).
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from rfe_helpers.build.blueprint import Blueprint, PackageSpec
from rfe_helpers.errors import InputError
from rfe_helpers.fleet.timer import parse_calendar, span
from rfe_helpers.lab.profile import Profile

# An application that is kept current; its registry is the reader's to choose.
DEMO_IMAGE = "quay.io/example/application:stable"
POLICIES = ("none", "check", "stage", "apply")
_UNITS = "/etc/systemd/system"
_SPLAYED = "50-splay.conf"
_END = "END_OF_FILE"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})+(?::[0-9]+)?|{_LABEL}:[0-9]+|localhost)")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(
    rf"{_COMPONENT}(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?"
)


@dataclass(frozen=True)
class Device:
    """How a device keeps itself current. Raises InputError for what cannot stand in its files.

    `policy` is rpm-ostree's: none, check, stage or apply. With "stage" the update waits for
    `window`, the OnCalendar expression of the moment at which the device boots into it; "apply"
    does not wait. `on_calendar` is when the device looks for updates; "" leaves that as rpm-ostree
    has it, an hour after the boot and then once a day. `splay` is the RandomizedDelaySec of every
    timer that asks a shared server. `image` is the application's container image with its
    registry, "" for none; `name` is that of its service. `notifies` says that the application
    reports when it is ready (sd_notify): only then can podman tell a bad new image and go back.
    `registry` is a registry that is spoken to without TLS, "" for none. `quadlet` is False for
    podman before 4.4, which gets a unit as `podman generate systemd --new` writes it.
    """

    policy: str = "stage"
    on_calendar: str = ""
    window: str = "*-*-* 01:30:00"
    splay: str = "6h"
    image: str = ""
    name: str = "application"
    notifies: bool = True
    registry: str = ""
    quadlet: bool = True

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(
                f"there is no policy {self.policy!r}", remedy=f"use one of {', '.join(POLICIES)}"
            )
        _check_setting("window", self.window, parse_calendar)
        _check_setting("splay", self.splay, span)
        if self.on_calendar:
            _check_setting("calendar expression", self.on_calendar, parse_calendar)
        if not _NAME.fullmatch(self.name) or self.name == "applyupdate":
            raise InputError(
                f"a service cannot be named {self.name!r}", remedy="application is fine"
            )
        if self.registry and not _REGISTRY.fullmatch(self.registry):
            raise InputError(f"{self.registry!r} is no registry", remedy="10.0.2.2:5000 is one")
        if self.image:
            _check_image(self.image)


@dataclass(frozen=True)
class ConfigFile:
    """A file of a device: absolute path below /etc, content, octal mode."""

    path: str
    text: str
    mode: str = "0644"


def files(device: Device) -> tuple[ConfigFile, ...]:
    """Everything that the device's configuration consists of, sorted by path."""
    found = [
        ConfigFile("/etc/rpm-ostreed.conf", f"[Daemon]\nAutomaticUpdatePolicy={device.policy}\n")
    ]
    splay = f"[Timer]\nRandomizedDelaySec={device.splay}\n"
    if device.policy != "none":
        looks = _LOOKS.format(on_calendar=device.on_calendar) if device.on_calendar else ""
        text = splay + looks
        found.append(ConfigFile(f"{_UNITS}/rpm-ostreed-automatic.timer.d/{_SPLAYED}", text))
    if device.policy == "stage":
        script = (resources.files("rfe_helpers.fleet") / "on_device" / "applyupdate.py").read_text()
        found += [
            ConfigFile("/etc/applyupdate.py", script),
            ConfigFile(f"{_UNITS}/applyupdate.service", _APPLY_SERVICE),
            ConfigFile(f"{_UNITS}/applyupdate.timer", _APPLY_TIMER.format(window=device.window)),
        ]
    if device.image:
        found += [
            ConfigFile(f"{_UNITS}/podman-auto-update.timer.d/{_SPLAYED}", splay),
            _application(device),
        ]
    if device.registry:
        text = f'[[registry]]\nlocation = "{device.registry}"\ninsecure = true\n'
        found.append(ConfigFile("/etc/containers/registries.conf.d/50-insecure.conf", text))
    return tuple(sorted(found, key=lambda file: file.path))


def enabled(device: Device) -> tuple[str, ...]:
    """The units to enable. A Quadlet is not among them: its [Install] section is enough."""
    wanted = {
        "rpm-ostreed-automatic.timer": device.policy != "none",
        "applyupdate.timer": device.policy == "stage",
        "podman-auto-update.timer": bool(device.image),
        f"{device.name}.service": bool(device.image) and not device.quadlet,
    }
    return tuple(unit for unit, holds in wanted.items() if holds)


def packages(device: Device) -> tuple[str, ...]:
    """What the operating system must have: podman, and nft, which its networks need."""
    return ("nftables", "podman") if device.image else ()


def customizations(device: Device) -> dict[str, Any]:
    """The blueprint twin: customizations in the API's shape (see `blueprint`)."""
    parents = sorted({posixpath.dirname(file.path) for file in files(device)} - {"/etc", _UNITS})
    found: dict[str, Any] = {
        "directories": [{"path": path, "ensure_parents": True} for path in parents],
        "files": [{"path": f.path, "mode": f.mode, "data": f.text} for f in files(device)],
        "services": {"enabled": list(enabled(device))},
    }
    return {key: value for key, value in found.items() if value not in ([], {"enabled": []})}


def blueprint(device: Device, name: str, description: str) -> Blueprint:
    """A blueprint of devices that are configured like this."""
    return Blueprint(
        name=name,
        description=description,
        version="0.0.1",
        packages=tuple(map(PackageSpec, packages(device))),
        customizations=customizations(device),
    )


def demo(profile: Profile) -> Blueprint:
    """The demo's blueprint: staged updates, a maintenance window, an application."""
    device = Device(image=DEMO_IMAGE, quadlet=profile.device.quadlet)
    return blueprint(device, "Edge-demo", "RHEL for Edge that keeps itself current")


def post(device: Device) -> str:
    """The kickstart twin: a shell script for `kickstart.render(post=…)`, which makes `edge2.ks`."""
    lines = ["set -eu"]
    for file in files(device):
        lines += [
            "",
            f"mkdir -p {shlex.quote(posixpath.dirname(file.path))}",
            f"cat > {shlex.quote(file.path)} <<'{_END}'",
            f"{file.text.rstrip()}\n{_END}",
            f"chmod {file.mode} {shlex.quote(file.path)}",
        ]
    if units := enabled(device):
        lines += ["", f"systemctl enable {shlex.join(units)}"]
    return "\n".join(lines) + "\n"


def _application(device: Device) -> ConfigFile:
    values = {"image": device.image, "name": device.name}
    if device.quadlet:
        notify = "true" if device.notifies else "false"
        text = _QUADLET.format(**values, notify=notify)
        return ConfigFile(f"/etc/containers/systemd/{device.name}.container", text)
    text = _PLAIN_UNIT.format(**values, notify="container" if device.notifies else "conmon")
    return ConfigFile(f"{_UNITS}/{device.name}.service", text)


def _check_setting(what: str, value: str, read: Callable[[str], object]) -> None:
    """One line that systemd reads as what is meant."""
    if value != " ".join(value.split()) or not value.isascii():
        raise InputError(f"the {what} {value!r} must be one line of plain text")
    try:
        read(value)
    except InputError as error:
        raise InputError(f"the {what}: {error.message}", remedy=error.remedy) from None


def _check_image(image: str) -> None:
    registry, slash, repository = image.partition("/")
    if not slash or not _REGISTRY.fullmatch(registry) or not _REPOSITORY.fullmatch(repository):
        raise InputError(
            f"{image!r} is no image that podman can keep up to date",
            remedy="name it with its registry and a tag, no digest: 10.0.2.2:5000/application:1",
        )


_LOOKS = """\
# The empty setting takes the delivered triggers away; who was off at the time catches up.
OnCalendar=
OnCalendar={on_calendar}
Persistent=true
"""

_APPLY_SERVICE = """\
[Unit]
Description=Boot into the staged update
ConditionPathExists=/run/ostree-booted

[Service]
Type=oneshot
ExecStart=/usr/bin/python3 /etc/applyupdate.py
# The reboot that it asks for may end it before it ends itself.
SuccessExitStatus=SIGTERM
"""

_APPLY_TIMER = """\
[Unit]
Description=Maintenance window: boot into the staged update

[Timer]
OnCalendar={window}
# The window is the same moment everywhere: no splay. It is not caught up after the boot of a
# device that was off.
AccuracySec=1s
Persistent=false

[Install]
WantedBy=timers.target
"""

_QUADLET = """\
[Unit]
Description=Application in a container: {image}
Wants=network-online.target
After=network-online.target

[Container]
Image={image}
ContainerName={name}
AutoUpdate=registry
Notify={notify}

[Service]
Restart=on-failure
RestartSec=10
# The first start fetches the image.
TimeoutStartSec=900

[Install]
WantedBy=multi-user.target
"""

# As `podman generate systemd --new --name` writes it.
_PLAIN_UNIT = """\
[Unit]
Description=Application in a container: {image}
Wants=network-online.target
After=network-online.target
RequiresMountsFor=%t/containers

[Service]
Environment=PODMAN_SYSTEMD_UNIT=%n
Restart=on-failure
RestartSec=10
# The first start fetches the image.
TimeoutStartSec=900
TimeoutStopSec=70
ExecStart=/usr/bin/podman run --cidfile=%t/%n.ctr-id --cgroups=no-conmon --rm \\
    --sdnotify={notify} --replace --detach --name {name} \\
    --label io.containers.autoupdate=registry {image}
ExecStop=/usr/bin/podman stop --ignore --time 10 --cidfile=%t/%n.ctr-id
ExecStopPost=/usr/bin/podman rm --force --ignore --time 10 --cidfile=%t/%n.ctr-id
Type=notify
NotifyAccess=all

[Install]
WantedBy=multi-user.target
"""
