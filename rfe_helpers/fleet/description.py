"""A device that updates itself: one description, two ways to configure it. No side effects.

`customizations` gives the files and services for a blueprint, so that every device built from it
has them; `post` gives the %post script of a kickstart (`edge2.ks`) that writes the same files to
one device during its installation.

Sources: rpm-ostreed.conf(5), systemd.timer(5), podman-systemd.unit(5), podman-auto-update(1) and
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

# The application that is kept up to date; readers choose their own registry.
DEMO_IMAGE = "quay.io/example/application:stable"
POLICIES = ("none", "check", "stage", "apply")
_UNITS = "/etc/systemd/system"
_SPLAY_DROP_IN = "50-splay.conf"
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
    """How a device updates itself. Raises InputError for values that cannot appear in its files.

    `policy` is rpm-ostree's: none, check, stage or apply. With "stage", the update waits for
    `window`, the OnCalendar expression of the moment at which the device boots into it; "apply"
    does not wait. `on_calendar` is when the device checks for updates; "" keeps rpm-ostree's
    default, an hour after boot and then once a day. `splay` is the RandomizedDelaySec of every
    timer that contacts a shared server. `image` is the application's container image with its
    registry, "" for none; `name` is the name of its service. `notifies` says that the application
    reports when it is ready (sd_notify): only then can podman detect a bad image and roll back.
    `registry` is a registry without TLS, "" for none. `quadlet` is False for podman before 4.4,
    which gets a unit as `podman generate systemd --new` writes it.

    >>> from rfe_helpers.fleet import Device
    >>> device = Device(splay="2h", window="Sat *-*-* 03:00:00", image="10.0.2.2:5000/app:1")
    >>> device.policy
    'stage'
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
                f"unknown policy {self.policy!r}", remedy=f"use one of {', '.join(POLICIES)}"
            )
        _check_setting("window", self.window, parse_calendar)
        _check_setting("splay", self.splay, span)
        if self.on_calendar:
            _check_setting("calendar expression", self.on_calendar, parse_calendar)
        if not _NAME.fullmatch(self.name) or self.name == "applyupdate":
            raise InputError(
                f"a service cannot be named {self.name!r}", remedy="use a name like application"
            )
        if self.registry and not _REGISTRY.fullmatch(self.registry):
            raise InputError(
                f"{self.registry!r} is not a registry", remedy="write it as 10.0.2.2:5000"
            )
        if self.image:
            _check_image(self.image)


@dataclass(frozen=True)
class ConfigFile:
    """A file of a device: its absolute path below /etc, its content and its octal mode.

    >>> from rfe_helpers.fleet import Device, description
    >>> file = description.files(Device(splay="2h"))[0]
    >>> file.path, file.mode
    ('/etc/applyupdate.py', '0644')
    """

    path: str
    text: str
    mode: str = "0644"


def files(device: Device) -> tuple[ConfigFile, ...]:
    """The files that configure the device, sorted by path.

    >>> from rfe_helpers.fleet import Device, description
    >>> for file in description.files(Device(splay="2h")):
    ...     print(file.path)
    /etc/applyupdate.py
    /etc/rpm-ostreed.conf
    /etc/systemd/system/applyupdate.service
    /etc/systemd/system/applyupdate.timer
    /etc/systemd/system/rpm-ostreed-automatic.timer.d/50-splay.conf
    """
    configuration = [
        ConfigFile("/etc/rpm-ostreed.conf", f"[Daemon]\nAutomaticUpdatePolicy={device.policy}\n")
    ]
    splay = f"[Timer]\nRandomizedDelaySec={device.splay}\n"
    if device.policy != "none":
        path = f"{_UNITS}/rpm-ostreed-automatic.timer.d/{_SPLAY_DROP_IN}"
        check = _CHECK_TIMER.format(on_calendar=device.on_calendar) if device.on_calendar else ""
        configuration.append(ConfigFile(path, splay + check))
    if device.policy == "stage":
        script = (resources.files("rfe_helpers.fleet") / "on_device" / "applyupdate.py").read_text()
        configuration += [
            ConfigFile("/etc/applyupdate.py", script),
            ConfigFile(f"{_UNITS}/applyupdate.service", _APPLY_SERVICE),
            ConfigFile(f"{_UNITS}/applyupdate.timer", _APPLY_TIMER.format(window=device.window)),
        ]
    if device.image:
        configuration += [
            ConfigFile(f"{_UNITS}/podman-auto-update.timer.d/{_SPLAY_DROP_IN}", splay),
            _application(device),
        ]
    if device.registry:
        text = f'[[registry]]\nlocation = "{device.registry}"\ninsecure = true\n'
        configuration.append(ConfigFile("/etc/containers/registries.conf.d/50-insecure.conf", text))
    return tuple(sorted(configuration, key=lambda file: file.path))


def enabled(device: Device) -> tuple[str, ...]:
    """The units to enable. A Quadlet is not among them: its [Install] section is enough.

    >>> from rfe_helpers.fleet import Device, description
    >>> description.enabled(Device())
    ('rpm-ostreed-automatic.timer', 'applyupdate.timer')
    """
    units = {
        "rpm-ostreed-automatic.timer": device.policy != "none",
        "applyupdate.timer": device.policy == "stage",
        "podman-auto-update.timer": bool(device.image),
        f"{device.name}.service": bool(device.image) and not device.quadlet,
    }
    return tuple(unit for unit, holds in units.items() if holds)


def packages(device: Device) -> tuple[str, ...]:
    """The packages that the device needs: podman, and nftables for its networks.

    >>> from rfe_helpers.fleet import Device, description
    >>> description.packages(Device(image="10.0.2.2:5000/app:1"))
    ('nftables', 'podman')
    """
    return ("nftables", "podman") if device.image else ()


def customizations(device: Device) -> dict[str, Any]:
    """The configuration as the customizations of a blueprint, in the shape of the API.

    >>> from rfe_helpers.fleet import Device, description
    >>> sorted(description.customizations(Device()))
    ['directories', 'files', 'services']
    """
    parents = sorted({posixpath.dirname(file.path) for file in files(device)} - {"/etc", _UNITS})
    values: dict[str, Any] = {
        "directories": [{"path": path, "ensure_parents": True} for path in parents],
        "files": [{"path": f.path, "mode": f.mode, "data": f.text} for f in files(device)],
        "services": {"enabled": list(enabled(device))},
    }
    return {key: value for key, value in values.items() if value not in ([], {"enabled": []})}


def blueprint(device: Device, name: str, description: str) -> Blueprint:
    """A blueprint for devices with this configuration.

    >>> from rfe_helpers.build import to_toml
    >>> from rfe_helpers.fleet import Device, description
    >>> print(to_toml(description.blueprint(Device(), "edge-store", "Devices of a store")))
    name = "edge-store"
    ...
    """
    return Blueprint(
        name=name,
        description=description,
        version="0.0.1",
        packages=tuple(map(PackageSpec, packages(device))),
        customizations=customizations(device),
    )


def demo(profile: Profile) -> Blueprint:
    """The demo's blueprint: staged updates, a maintenance window, an application.

    >>> from rfe_helpers.fleet import description
    >>> from rfe_helpers.lab import profile
    >>> description.demo(profile.load("rhel-9.6")).name
    'Edge-demo'
    """
    device = Device(image=DEMO_IMAGE, quadlet=profile.device.quadlet)
    return blueprint(device, "Edge-demo", "RHEL for Edge that keeps itself current")


def post(device: Device) -> str:
    """The configuration as a shell script for `kickstart.render(post=…)`, as in `edge2.ks`.

    >>> from rfe_helpers.fleet import Device, description
    >>> print(description.post(Device(splay="2h")))
    set -eu
    ...
    systemctl enable rpm-ostreed-automatic.timer applyupdate.timer
    """
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
    """Raise InputError unless `value` is one line that `read` accepts."""
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
            f"podman cannot keep {image!r} up to date",
            remedy="name it with a registry and a tag, not a digest: 10.0.2.2:5000/application:1",
        )


_CHECK_TIMER = """\
# The empty setting removes the delivered triggers; a device that was off at the time catches up.
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
# The reboot that it requests may end it first.
SuccessExitStatus=SIGTERM
"""

_APPLY_TIMER = """\
[Unit]
Description=Maintenance window: boot into the staged update

[Timer]
OnCalendar={window}
# No splay: the window is the same moment everywhere. A device that was off then does not catch up
# after its boot.
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
# The first start pulls the image.
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
# The first start pulls the image.
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
