"""A machine on which some commands are not installed."""

import os
import shlex
from pathlib import Path

SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def without(*commands: str) -> list[str]:
    """What to put before a command line so that it runs where `commands` are not installed: each
    is covered, in a mount namespace of its own, with a file that nobody can execute. An ordinary
    user is root there."""
    directories = f"{os.environ['PATH']}:{SYSTEM}".split(":")
    paths = {Path(where, name).resolve() for where in directories for name in commands}
    covered = [f"mount --bind /dev/null {shlex.quote(str(p))}" for p in sorted(paths) if p.exists()]
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", "--mount", *root, "sh", "-ec", "\n".join([*covered, 'exec "$@"']), "sh"]
