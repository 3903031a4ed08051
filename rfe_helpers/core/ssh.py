"""Other machines over SSH: run commands there, and forward their sockets.

A machine of the lab is reached with the lab's own key and none of the caller's SSH configuration;
one that a person names (`ssh://user@host`) is reached as that person reaches it, with their
configuration, agent and known hosts. Secrets are passed on stdin only.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.run import Result
from rfe_helpers.errors import DeadlineExceededError, InputError, NodeError

# The exit status of ssh itself when it cannot connect or loses the connection: ssh(1).
FAILED = 255
_URL = re.compile(
    r"ssh://(?:([a-z_][a-z0-9_.-]*)@)?([A-Za-z0-9][A-Za-z0-9.-]*)(?::([0-9]{1,5}))?/?"
)
# Seconds for which a shared connection stays open without being used.
_PERSIST = 20
# ssh makes the socket under a name with 17 characters more, and 107 bytes are the limit.
_LONGEST_CONTROL = 107 - 17
_COMMON = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "LogLevel=ERROR",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=8",
]


@dataclass(frozen=True)
class Host:
    r"""A machine that is reached over SSH. One with a `key` belongs to the lab; `port` 0 and `user`
    "" leave these to the caller's SSH configuration. Commands share a connection, which stays open
    for a little while, if there is a `control` socket for it: a login takes an emulated machine a
    second.

    >>> from rfe_helpers.core import ssh
    >>> builder = ssh.Host("builder.example.com", user="root", port=2222)
    >>> builder.line
    'ssh -p 2222 root@builder.example.com'
    """

    host: str
    user: str = ""
    port: int = 0
    key: Path | None = None
    known_hosts: Path | None = None
    control: Path | None = None

    @property
    def name(self) -> str:
        """The machine as a person writes it: user@host:port."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port else "")

    @property
    def line(self) -> str:
        """The command that opens a shell there, ready to paste."""
        return shlex.join(self.login())

    def login(self, *command: str) -> list[str]:
        """The command line with which a person opens a shell there, or runs a command."""
        words = ["ssh"]
        if self.key is not None:
            words += ["-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        return [*words, *self._target(), *command]

    def argv(self, *words: str) -> list[str]:
        """The command line of ssh with further words: options, or a command to run there."""
        options = [*_COMMON]
        start = ["ssh"]
        if self.key is not None:
            start += ["-F", "none", "-i", str(self.key)]
            options += ["IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new"]
            options += [f"UserKnownHostsFile={self.known_hosts}"]
        if self.control is not None and len(os.fsencode(self.control)) <= _LONGEST_CONTROL:
            options += ["ControlMaster=auto", f"ControlPath={self.control}"]
            options += [f"ControlPersist={_PERSIST}"]
        flags = [word for option in options for word in ("-o", option)]
        before = [word for word in words if word.startswith("-")]
        after = [word for word in words if not word.startswith("-")]
        return [*start, *flags, *before, *self._target(), *after]

    def _target(self) -> list[str]:
        port = ["-p", str(self.port)] if self.port else []
        return [*port, f"{self.user}@{self.host}" if self.user else self.host]

    def run(
        self,
        command: str,
        *,
        input: str | None = None,
        seconds: float = 300,
        on_line: Callable[[str], None] | None = None,
    ) -> Result:
        """Run a shell command there and return its Result, whatever its status.

        `input` goes to its stdin. `on_line` is called with each line as it comes; then stdout holds
        stderr, too. Raises NodeError if the machine cannot be reached (status 255 of ssh) or the
        command takes longer than `seconds`.
        """
        try:
            result = run.run(
                self.argv(command),
                seconds=seconds,
                check=False,
                input=input,
                env=agent(),
                on_line=on_line,
            )
        except DeadlineExceededError:
            raise NodeError(f"{self.name}: a command took longer than {seconds:.0f} s") from None
        if result.status == FAILED:
            tail = run.tail_of((result.stderr or result.stdout).strip(), 3)
            raise NodeError(f"{self.name} does not answer over SSH: {tail}", remedy=_remedy(self))
        return result

    def disconnect(self) -> None:
        """Let the next command make a connection of its own: the machine may be in another boot by
        then. What is connected now ends by itself when it is not used any more."""
        if self.control is not None:
            self.control.unlink(missing_ok=True)

    def forward_argv(self, local: Path, remote: str, port: int) -> list[str]:
        """The command that forwards, as long as it runs, the socket `local` here to the unix socket
        `remote` there, and a loopback port there to the same port here. Only the owner can use the
        socket here (the default of StreamLocalBindMask)."""
        options = ["-oExitOnForwardFailure=yes", "-oStreamLocalBindUnlink=yes"]
        back = f"-R127.0.0.1:{port}:127.0.0.1:{port}"
        own = replace(self, control=None)
        return own.argv("-N", f"-L{local}:{remote}", back, *options)


def agent() -> dict[str, str]:
    """The environment variables that ssh needs to use the caller's keys."""
    return {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}


def _remedy(host: Host) -> str:
    if host.key is not None:
        return f"is the machine running? try: {host.line}"
    return f"ssh must log in without asking anything: try `{host.line} true`"


def parse(url: str) -> Host:
    """A host from `ssh://[user@]host[:port]`. Raises InputError.

    >>> from rfe_helpers.core import ssh
    >>> ssh.parse("ssh://root@builder.example.com:2222").name
    'root@builder.example.com:2222'
    """
    match = _URL.fullmatch(url)
    if match is None or int(match[3] or 1) not in range(1, 65536):
        raise InputError(
            f"{url!r} is not an SSH address",
            remedy="write it as ssh://user@host or ssh://user@host:port",
        )
    return Host(match[2], match[1] or "", int(match[3] or 0))
