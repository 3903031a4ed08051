"""Where combinations run: a cluster of Dask in this process, or any other by its address.

Each combination reserves memory from the resource MEMORY of its worker
(https://distributed.dask.org/en/stable/resources.html), so that no more run at a time than fit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rfe_helpers.core import memory
from rfe_helpers.core.network import LOOPBACK
from rfe_helpers.core.progress import Say
from rfe_helpers.errors import RfeError
from rfe_helpers.workbook import doctor

if TYPE_CHECKING:
    from distributed import Client

RESOURCE = "MEMORY"
_SECONDS_TO_CONNECT = 20
_SECONDS_FOR_WORKERS = 60
# The status pages of scheduler and worker, which Dask has on all addresses unless told otherwise.
_NO_PAGES: dict[str, list[str]] = {
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


def reservation() -> dict[str, float]:
    """The resources that a combination takes."""
    return {RESOURCE: float(doctor.MEMORY_NEEDED)}


@contextmanager
def local(scratch: Path, most: int, tell: Say) -> Iterator[tuple[Client, int]]:
    """A cluster of threads in this process, and how many combinations, at most `most`, it runs at a
    time: as many as there are processors, and fit in the memory that is free now. Raises RfeError
    if not even one fits."""
    import dask
    from dask.system import CPU_COUNT
    from distributed import Client, LocalCluster
    from distributed.system import MEMORY_LIMIT

    available = min(memory.available(), MEMORY_LIMIT)
    free, needed = available / doctor.GIB, doctor.MEMORY_NEEDED / doctor.GIB
    count = min(available // doctor.MEMORY_NEEDED, CPU_COUNT, most)
    if count == 0:
        raise RfeError(
            f"{free:.1f} GiB of memory are free, a combination needs {needed:.0f} GiB",
            remedy="close other programs; `rfe lab list` shows what runs in labs",
        )
    tell(
        f"{count} at a time: {free:.1f} GiB of memory are free, {needed:.0f} GiB for each, "
        f"and {CPU_COUNT} processors"
    )
    # Everything within the process, but for two web servers without pages on loopback.
    with (
        dask.config.set(_NO_PAGES),
        LocalCluster(
            n_workers=1,
            threads_per_worker=count,
            processes=False,
            memory_limit=0,
            resources={RESOURCE: count * float(doctor.MEMORY_NEEDED)},
            dashboard_address=f"{LOOPBACK}:0",
            worker_dashboard_address=f"{LOOPBACK}:0",
            scheduler_kwargs={"dashboard": False},
            local_directory=str(scratch),
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, count


@contextmanager
def remote(address: str) -> Iterator[Client]:
    """The cluster of a scheduler such as tcp://10.0.0.1:8786. Raises RfeError if nobody answers, if
    TLS is not configured for one with it, or if no worker has enough of the resource."""
    from distributed import Client
    from distributed.comm.addressing import get_address_host_port
    from distributed.security import Security

    try:
        get_address_host_port(address)
        settings = Security().get_connection_args("client")
        if address.startswith(("tls://", "wss://")) and settings.get("ssl_context") is None:
            raise RfeError(
                f"there are no certificates for {address}",
                remedy="set distributed.comm.tls in Dask's configuration",
            )
        client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RfeError(
            f"no scheduler of Dask answers at {address}: {error}",
            remedy="start one with `dask scheduler`, or leave --scheduler out",
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_FOR_WORKERS)
        except TimeoutError:
            raise RfeError(
                f"the scheduler {address} has no workers", remedy=_start(address)
            ) from None
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        needed = doctor.MEMORY_NEEDED
        if all(worker["resources"].get(RESOURCE, 0) < needed for worker in workers):
            raise RfeError(
                f"no worker of {address} has {needed / doctor.GIB:.0f} GiB of the resource "
                f"{RESOURCE} for a combination",
                remedy=_start(address),
            )
        yield client


def _start(address: str) -> str:
    return f'start workers with `dask worker {address} --resources "{RESOURCE}=8e9"` (in bytes)'
