"""The suite runs offline: sockets may reach this machine and nothing else."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")     # before NumPy is imported: results must not depend on the cores

for _number in (signal.SIGINT, signal.SIGHUP):   # a shell starts its background jobs with them ignored, and so their
    if signal.getsignal(_number) is signal.SIG_IGN:   # children: commands under test must be able to be interrupted
        signal.signal(_number, signal.SIG_DFL)

pytest_plugins = ["tests.servers.fixtures"]

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0", "::")


@pytest.fixture(autouse=True, scope="session")
def only_loopback_sockets() -> Iterator[None]:
    """Connections beyond this machine raise."""
    real_connect = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if isinstance(address, tuple) and not str(host).startswith(_LOOPBACK):
            raise RuntimeError(f"a test tried to reach {host}: the suite runs offline")
        return real_connect(self, address)

    socket.socket.connect = connect  # type: ignore[method-assign]
    yield
    socket.socket.connect = real_connect  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real alerts and images that may lie beside the project."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip(f"no real data beside the project (looked for {data.name} in a folder 'shared' next to it)")
    return data
