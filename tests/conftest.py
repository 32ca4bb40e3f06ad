"""What every test may rely on: no network, one thread, the same random numbers in any order."""

from __future__ import annotations

import os
import socket

import hypothesis
import pytest

# Read by the Hugging Face libraries and by OpenMP when they are first imported, which is after this file.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("project", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def refuse_the_network():
    """Connections to other machines are refused; those within this machine, between processes of one test, work."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address):
        if self.family != socket.AF_UNIX and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise ConnectionRefusedError(f"a test tried to connect to {address!r}: tests run without a network")
        return connect(self, address)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(socket.socket, "connect", connect_here)
        yield


@pytest.fixture(autouse=True)
def seed_torch():
    """Each test starts from the same seed of torch, whichever tests ran before it."""
    import torch

    torch.manual_seed(0)
