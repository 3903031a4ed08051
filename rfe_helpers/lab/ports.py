"""The ports of loopback that the usual lab takes if they are free; the texts name them."""

from __future__ import annotations

WEB = 8000  # the web server that machines are installed from
REGISTRY = 5000  # container images
SSH = 2222  # of the first machine, as the demo has it
CONSOLE = 9091  # the web console of a guest, as the demo has it
JUPYTER = 8888
