"""The ports of loopback that the usual lab takes if they are free; the texts name them."""

from __future__ import annotations

import os

WEB = 8000  # the web server that machines are installed from
REGISTRY = 5000  # container images
SSH = 2222  # of the first machine, as the demo has it
CONSOLE = 9091  # the web console of a guest, as the demo has it
JUPYTER = 8888


def of_user(port: int) -> int:
    """One of these ports for this user: shifted by 7 for uid 1007, so that users do not meet.

    That a port is free now says nothing: another user's server may be stopped for a moment.
    """
    return port + os.getuid() % 1000
