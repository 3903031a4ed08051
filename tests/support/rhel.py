"""A RHEL that is none: `ssh` and the programs of a release as recorders on PATH.

`ssh` runs the command here, with the recorders first on PATH. Each program keeps what it was
called with in `calls.jsonl`, and behaves as far as the steps of an installation look: what is
installed, registered or enabled stays so. subscription-manager is a Python program, as the real
one, and keeps both lists of words that it has, Python's and the kernel's; a password only as
its digest.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

# What must be done on a machine of each release, for the user `core`: written out here, so that a
# profile cannot change it unnoticed.
_ROLE = "--set=Red Hat Enterprise Linux Server"
_PURPOSE = ("service-level --set=Self-Support", "usage --set=Development/Test")
_OLD = [f"subscription-manager {words}" for words in (f"role {_ROLE}", *_PURPOSE, "attach")]
_NEW = [f"subscription-manager syspurpose {words}" for words in (f"role {_ROLE}", *_PURPOSE)]
_PACKAGES = "osbuild-composer composer-cli cockpit-composer bash-completion"
_YUM, _DNF = f"yum install -y {_PACKAGES}", f"dnf install -y {_PACKAGES}"
ENABLED = [
    "systemctl enable --now osbuild-composer.socket",
    "systemctl enable --now cockpit.socket",
    "usermod -aG weldr core",
]
RELEASES = {
    **{f"rhel-8.{minor}": [*_OLD, _YUM] for minor in (3, 4)},
    **{f"rhel-8.{minor}": [*_NEW, _YUM] for minor in range(5, 11)},
    **{f"rhel-9.{minor}": [*_NEW, _DNF] for minor in range(9)},
    "centos-stream-9": [_DNF],
    "fedora-iot": [_DNF.replace("cockpit-composer", "cockpit-image-builder")],
}


def commands(release: str, user: str, password: str) -> list[str]:
    """All that must be done, the password as its digest."""
    words = f"--username={user} --password={digest(password)}"
    register = [f"subscription-manager register {words}"] if release.startswith("rhel") else []
    return [*register, *RELEASES[release], *ENABLED]


PROGRAMS = (
    *("subscription-manager", "dnf", "yum", "rpm", "systemctl", "usermod", "id", "df", "sudo"),
)
_RECORDER = """#!{python}
import hashlib, json, os, sys
from pathlib import Path

state = Path({state!r})
name, words = Path(sys.argv[0]).name, sys.argv[1:]
options = ("--password=", "--activationkey=")


def hidden(word):
    for option in options:
        if word.startswith(option):
            return option + hashlib.sha256(word[len(option):].encode()).hexdigest()
    return word


def has(what):
    return (state / "set").exists() and what in (state / "set").read_text().splitlines()


def keep(*what):
    with (state / "set").open("a") as file:
        file.write("".join(each + "\\n" for each in what))


if name == "sudo":
    assert words.pop(0) == "-n"
    os.execvp(words[0], words)
kernel = Path("/proc/self/cmdline").read_bytes().split(b"\\0")[:-1]
if name == "subscription-manager":
    asks = words[0] in ("identity", "status") or "--show" in words
else:
    asks = name in ("rpm", "id", "df") or words[:1] in (["is-enabled"], ["is-active"])
call = {{"do": not asks, "argv": [name, *map(hidden, words)]}}
if words[:1] == ["register"]:
    # What the kernel shows of it after the Python program that is run in place of it.
    call["kernel"] = [word.decode() for word in kernel[-3:]]
with (state / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\\n")
failure = state / "fails" / (words[0] if name == "subscription-manager" else name)
if not asks and failure.exists():
    status, _, text = failure.read_text().partition("\\n")
    print(text)
    sys.exit(int(status))
if name == "subscription-manager":
    if words[0] == "register":
        keep("registered")
        print("The system has been registered with ID: 00000000")
    elif words[0] == "identity":
        sys.exit(not has("registered"))
    elif words[0] == "attach":
        keep("attached")
    elif words[0] == "status":
        print("Overall Status:", "Current" if has("attached") else "Invalid")
    elif "--show" in words:
        print("Current", [line for line in (state / "set").read_text().splitlines()
                          if line.startswith(" ".join(words[:-1]))])
    else:
        keep(" ".join(words[:-1]) + "=" + words[-1].partition("=")[2])
elif name in ("dnf", "yum"):
    keep(*words[2:])
elif name == "rpm":
    sys.exit(not all(map(has, words[1:])))
elif name == "systemctl":
    if words[0] == "enable":
        keep(words[-1])
    else:
        sys.exit(not has(words[-1]))
elif name == "usermod":
    keep("group " + words[1])
elif name == "id":
    print("wheel weldr" if has("group weldr") else "wheel")
elif name == "df":
    room = state / "room"
    free = room.read_text() if room.exists() else "99000000"
    print("Filesystem 1024-blocks Used Available Capacity Mounted on")
    print("/dev/vda3 99999999 1 " + free + " 1% /")
"""
# With -L there is a socket here that leads to the one of a test, as long as ssh runs.
_SSH = """#!/bin/sh
echo "$@" >> {state}/ssh
for word; do
    case $word in
    -L*) here=${{word#-L}}; ln -sf {socket} "${{here%%:*}}"; exec sleep 3600 ;;
    esac
    command=$word
done
[ -e {state}/unreachable ] && {{ echo "ssh: connect to host: Connection refused" >&2; exit 255; }}
PATH={bin}:$PATH exec sh -c "$command"
"""


class Rhel:
    """The recorders in a directory; `path` goes in front of PATH."""

    def __init__(self, directory: Path, socket: Path | None = None) -> None:
        self.state = directory / "state"
        self.path = directory / "ssh-bin"
        programs = directory / "there"
        for each in (self.state / "fails", self.path, programs):
            each.mkdir(parents=True)
        text = _RECORDER.format(python=sys.executable, state=str(self.state))
        for name in PROGRAMS:
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        ssh = _SSH.format(state=self.state, socket=socket or "/nowhere", bin=programs)
        (self.path / "ssh").write_text(ssh)
        (self.path / "ssh").chmod(0o755)

    def fail(self, what: str, status: int, text: str) -> None:
        """Let a program, or a command of subscription-manager, fail with what the real one says."""
        (self.state / "fails" / what).write_text(f"{status}\n{text}")

    def calls(self) -> list[dict[str, object]]:
        path = self.state / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def done(self) -> list[str]:
        """The commands that changed something, in order, as a person would type them."""
        return [" ".join(map(str, call["argv"])) for call in self.calls() if call["do"]]  # type: ignore[call-overload]

    def forget_calls(self) -> None:
        (self.state / "calls.jsonl").unlink(missing_ok=True)


def digest(secret: str) -> str:
    """How a recorder keeps a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def files_with(text: str, *directories: Path) -> list[Path]:
    """Every file below directories that holds a text."""
    wanted = text.encode()
    return [
        path
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file() and wanted in path.read_bytes()
    ]
