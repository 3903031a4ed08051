"""Install Image Builder on another machine: the steps, and carrying them out.

`steps` lists them as commands that a person could type; `carry_out` does them over SSH, one after
the other. Each step first tests whether it is done already, so a second run, or one after a
failure, does nothing twice.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rfe_helpers.build import registration
from rfe_helpers.build.registration import Credentials
from rfe_helpers.core import run
from rfe_helpers.core.progress import OnProgress
from rfe_helpers.core.run import Result
from rfe_helpers.errors import BuilderError, InputError
from rfe_helpers.lab.profile import Profile

GROUP = "weldr"
SOCKET = "/run/weldr/api.socket"
INSTALL_SECONDS = 3600
_WAS_DONE = "RFE-WAS-DONE"
_DISALLOWED = "/etc/cockpit/disallowed-users"
# The command that tells whether packages are installed, by the tool that installs them.
_QUERIES = {"yum": "rpm -q", "dnf": "rpm -q", "apt-get": "dpkg -s"}
_QUIET = {"apt-get": "DEBIAN_FRONTEND=noninteractive "}
# What each package and socket is for, in any release that has it.
_PURPOSES = {
    "osbuild-composer": "the service and its workers",
    "composer-cli": "the command",
    "cockpit-composer": "the page in the web console",
    "cockpit-image-builder": "the page in the web console",
    "bash-completion": "TAB for composer-cli",
    "osbuild-composer.socket": "Image Builder's API; the service starts with its first client",
    "cockpit.socket": "the web console, on port 9090; it starts with its first client, too",
}
_LIBRARIES = "what the sandbox's service is written with and what it runs"


class Shell(Protocol):
    """An object that runs shell commands on the machine, such as ssh.Host."""

    @property
    def name(self) -> str: ...

    def run(
        self,
        command: str,
        *,
        input: str | None = None,
        seconds: float = 300,
        on_line: Callable[[str], None] | None = None,
    ) -> Result: ...


@dataclass(frozen=True)
class Step:
    """One task, done as root. `command` is shown, and run unless there is a `script`; `reason` says
    what it is for; `done` is a shell test that tells whether it is done already; `stdin` is the
    command's input; `seconds` limits it. A step with `missing` can only be done already: that says
    what it lacks."""

    title: str
    command: str
    done: str = ""
    script: str = field(default="", repr=False)
    stdin: str = field(default="", repr=False)
    secret: bool = False
    seconds: float = 300
    missing: str = ""
    reason: str = ""


@dataclass(frozen=True)
class StepOutcome:
    """A step that is done, and whether it was done before."""

    step: Step
    was_done: bool


def steps(
    profile: Profile,
    user: str = "root",
    credentials: Credentials | None = None,
    *,
    console_for_root: bool = False,
    before: Sequence[Step] = (),
) -> tuple[Step, ...]:
    """The steps that make a machine of the release an Image Builder for `user`, in order.

    `console_for_root` lets root into the web console; the steps `before` come before packages are
    installed.
    """
    install = profile.install
    packages = shlex.join(install.packages)
    planned = [*_registration(profile, credentials), _room(install.room), *before]
    planned.append(
        Step(
            "install Image Builder",
            f"{install.tool} install -y {packages}",
            done=f"{_QUERIES[install.tool]} {packages}",
            script=f"{_QUIET.get(install.tool, '')}{install.tool} install -y {packages}",
            seconds=INSTALL_SECONDS,
            reason=_purposes(install.packages),
        )
    )
    planned += [_enable(unit) for unit in install.sockets]
    if user != "root":
        name = shlex.quote(user)
        planned.append(
            Step(
                f"let {user} use Image Builder",
                f"usermod -aG {GROUP} {name}",
                done=f"id -nG {name} | tr ' ' '\\n' | grep -qx {GROUP}",
                reason=f"only root and the group {GROUP} may open the socket",
            )
        )
    if console_for_root:
        planned.append(
            Step(
                "let root into the web console",
                f"sed -i '/^root$/d' {_DISALLOWED}",
                done=f"! grep -qsx root {_DISALLOWED}",
                reason="from RHEL 9 on, Cockpit's list of disallowed users has root",
            )
        )
    return tuple(planned)


def _purposes(packages: Sequence[str]) -> str:
    known = [f"{name}: {_PURPOSES[name]}" for name in packages if name in _PURPOSES]
    return "; ".join(known) or _LIBRARIES


def _registration(profile: Profile, credentials: Credentials | None) -> list[Step]:
    facts = profile.registration
    if facts.kind == "none":
        return []
    register = Step(
        "register with Red Hat",
        registration.command(credentials),
        done="subscription-manager identity",
        script="" if credentials is None else registration.script(credentials),
        stdin="" if credentials is None else credentials.secret + "\n",
        secret=True,
        missing=registration.MISSING if credentials is None else "",
        reason="packages come from repositories that a subscription opens",
    )
    return [register, *map(_described, facts.commands)]


def _described(command: str) -> Step:
    """The step of a command that sets a system purpose, or attaches a subscription."""
    match = re.fullmatch(r"(.*) --set=('.*'|\S+)", command)
    if match is None:
        done = "subscription-manager status | grep -Eq 'Overall Status: (Current|Disabled)'"
        return Step("attach a subscription", command, done=done, reason="it opens the repositories")
    purpose = match[1].split()[-1].replace("-", " ")
    return Step(
        f"set its {purpose}",
        command,
        done=f"{match[1]} --show | grep -qF -e {match[2]}",
        reason="it says which subscription fits the system",
    )


def _room(room: int) -> Step:
    free = "$(df -Pk /var | awk 'NR == 2 {print $4}')"
    return Step(
        "look for room",
        f"df -h /var    # {room / 1e9:.0f} GB must be free",
        done=f"[ {free} -ge {room // 1024} ]",
        script=f'echo "No space left on device: /var has {free} KiB free, composes need '
        f'{room // 1024}"\nexit 1',
        reason="a compose on a full disk fails with an error that does not say so",
    )


def _enable(unit: str) -> Step:
    name = shlex.quote(unit)
    return Step(
        f"enable {unit}",
        f"systemctl enable --now {name}",
        done=f"systemctl is-enabled --quiet {name} && systemctl is-active --quiet {name}",
        reason=_PURPOSES.get(unit, ""),
    )


def carry_out(
    planned: Sequence[Step],
    shell: Shell,
    log: Path,
    on_progress: OnProgress = None,
    *,
    user: str = "root",
) -> tuple[StepOutcome, ...]:
    """Do the steps that are not done yet and report each command; output goes to `log` (0600).

    Raises BuilderError with the meaning of a step's failure and a remedy, InputError if a step
    lacks credentials, NodeError if the machine does not answer.
    """
    outcomes = []
    for number, step in enumerate(planned, 1):
        if on_progress is not None:
            on_progress(f"{number}/{len(planned)} {step.title}: {step.command}")
        outcomes.append(StepOutcome(step, _do(step, shell, log, on_progress, user)))
    return tuple(outcomes)


def _do(step: Step, shell: Shell, log: Path, on_progress: OnProgress, user: str) -> bool:
    """Do a step; return whether it was done before."""
    secret = step.stdin.strip() if step.secret else ""
    written: list[str] = []

    def keep(line: str) -> None:
        # No release prints the secret; if one ever does, it is not passed on.
        shown = line.replace(secret, "(hidden)") if secret else line
        written.append(shown)
        _append(log, shown)
        if on_progress is not None and shown.strip() and shown != _WAS_DONE:
            on_progress(f"{step.title}: {shown.strip()[:120]}")

    _append(log, f"\n# {step.title} on {shell.name}\n$ {step.command}")
    result = shell.run(
        as_user(_shell_script(step), user),
        input=step.stdin or None,
        seconds=step.seconds,
        on_line=keep,
    )
    if result.status == 0:
        return _WAS_DONE in written
    if step.missing:
        raise InputError(f"{step.title}: there are no credentials", remedy=step.missing)
    output = "\n".join(written)
    meaning = registration.meaning(output)
    message, remedy = meaning or (f"ended with status {result.status}", "look at the log")
    tail = "\n".join(f"  {line}" for line in run.tail_of(output, 5).splitlines())
    raise BuilderError(
        f"{step.title}: {message}" + (f":\n{tail}" if tail else ""), remedy=remedy, log=log
    )


def _shell_script(step: Step) -> str:
    lines = ["export LC_ALL=C.UTF-8"]
    if step.done:
        lines.append(
            f"if ( {step.done} ) </dev/null >/dev/null 2>&1; then echo {_WAS_DONE}; exit 0; fi"
        )
    lines.append("exit 1" if step.missing else step.script or step.command)
    return "\n".join(lines)


def as_user(script: str, user: str) -> str:
    """A script as one command that root's shell runs, with sudo if `user` is not root."""
    words = ["sh", "-c", script] if user == "root" else ["sudo", "-n", "sh", "-c", script]
    return shlex.join(words)


def _append(log: Path, text: str) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
