import pytest

from rfe_helpers.errors import RfeError
from rfe_helpers.workbook.matrix import cluster


def test_a_scheduler_with_tls_needs_certificates():
    with pytest.raises(RfeError, match="no certificates for tls:") as caught:
        cluster.remote("tls://127.0.0.1:1").__enter__()
    assert caught.value.remedy == "set distributed.comm.tls in Dask's configuration"
