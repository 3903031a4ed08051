"""Another machine over SSH: commands there, and sockets of it here.

A machine of the lab is reached with the lab's own key and nothing of the caller's configuration;
one that a person names (`ssh://user@host`) as that person reaches it: their configuration, agent
and known hosts. Secrets travel on stdin only.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rfe_helpers.core import run
from rfe_helpers.core.run import Result
from rfe_helpers.errors import DeadlineExceededError, InputError, NodeError

# What ssh itself ends with when it could not connect or lost the connection.
FAILED = 255
_URL = re.compile(
    r"ssh://(?:([a-z_][a-z0-9_.-]*)@)?([A-Za-z0-9][A-Za-z0-9.-]*)(?::([0-9]{1,5}))?/?"
)
_COMMON = (
    *("BatchMode=yes", "ConnectTimeout=10", "LogLevel=ERROR"),
    *("ServerAliveInterval=15", "ServerAliveCountMax=8"),
)


@dataclass(frozen=True)
class Host:
    """A machine over SSH. With `key` it is one of the lab's; `port` 0 and `user` "" leave them to
    the caller's SSH configuration."""

    host: str
    user: str = ""
    port: int = 0
    key: Path | None = None
    known_hosts: Path | None = None

    @property
    def name(self) -> str:
        """How a person calls it: user@host:port."""
        user = f"{self.user}@" if self.user else ""
        return f"{user}{self.host}" + (f":{self.port}" if self.port else "")

    @property
    def line(self) -> str:
        """The command that opens a shell there, to be copied."""
        words = ["ssh"]
        if self.key is not None:
            words += ["-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        return shlex.join([*words, *self._target()])

    def argv(self, *words: str) -> list[str]:
        """The command line of ssh with further words: options, or a command to run there."""
        options = list(_COMMON)
        start = ["ssh"]
        if self.key is not None:
            start += ["-F", "none", "-i", str(self.key)]
            options += ["IdentitiesOnly=yes", "StrictHostKeyChecking=accept-new"]
            options += [f"UserKnownHostsFile={self.known_hosts}"]
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
        """Run a shell command there; any status but 255 is the caller's to judge. `input` goes to
        its stdin. With `on_line`, which sees each line as it comes, stdout holds stderr, too.
        Raises NodeError if the machine cannot be reached or takes longer than `seconds`."""
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
            said = run.tail_of((result.stderr or result.stdout).strip(), 3)
            raise NodeError(f"{self.name} does not answer over SSH: {said}", remedy=_remedy(self))
        return result

    def forward_argv(self, local: Path, remote: str, port: int) -> list[str]:
        """The command that makes `local` here lead to the unix socket `remote` there, and a port
        of loopback there to the same port here, as long as it runs. The socket here is its owner's
        only (StreamLocalBindMask's default)."""
        options = ("-oExitOnForwardFailure=yes", "-oStreamLocalBindUnlink=yes")
        back = f"-R127.0.0.1:{port}:127.0.0.1:{port}"
        return self.argv("-N", f"-L{local}:{remote}", back, *options)


def agent() -> dict[str, str]:
    """What ssh needs from the caller's environment to use their keys."""
    return {name: os.environ[name] for name in ("SSH_AUTH_SOCK",) if name in os.environ}


def _remedy(host: Host) -> str:
    if host.key is not None:
        return f"is the machine running? try: {host.line}"
    return f"it must work without asking anything: try `{host.line} true`"


def parse(url: str) -> Host:
    """A host from ssh://[user@]host[:port]. Raises InputError."""
    found = _URL.fullmatch(url)
    if found is None or int(found[3] or 1) not in range(1, 65536):
        raise InputError(f"{url!r} is no address", remedy="write it as ssh://user@host or :port")
    return Host(found[2], found[1] or "", int(found[3] or 0))
