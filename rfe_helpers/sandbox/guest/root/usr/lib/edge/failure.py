"""How the stand-ins for rpm-ostree, bootc and `ostree container` fail: with one line."""

import subprocess
import sys
from collections.abc import Callable

_LONGEST = 2000


class Failure(Exception):  # noqa: N818
    """A failure that the user is told of; the message is printed after `error: `."""


def status_of(command: Callable[[], int], title: str = "") -> int:
    """Run a command and return its exit status; what it raises is told after `title`."""
    try:
        return command()
    except Failure as error:
        return _told(title, str(error))
    except KeyboardInterrupt:
        return 130
    except subprocess.CalledProcessError as error:
        return _told(title, f"{error.cmd[0]} ended with status {error.returncode}")
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return _told(title, f"{place}{error.strerror or error}")
    except Exception as error:
        # libostree's, which is known only once its bindings are loaded: linting does without them.
        if not hasattr(error, "message"):
            raise
        return _told(title, str(error.message))


def _told(title: str, reason: str) -> int:
    print(f"error: {title}{printable(reason)}", file=sys.stderr)
    return 1


def printable(text: str) -> str:
    """A text from elsewhere without what would move a terminal's cursor, and not too long."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text[:_LONGEST])
