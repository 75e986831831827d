"""A busy port is reported with its number and its owner before anything starts."""

import os
import socket

import pytest

from pilothouse.demo.errors import PortBusy
from pilothouse.demo.ports import PortNeed, check_free, owner_of

ADDRESS = "127.61.0.1"


def test_a_busy_port_names_its_owner() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(PortBusy) as caught:
            check_free([PortNeed(address=ADDRESS, port=port, purpose="reviews-v1")])

    assert caught.value.port == port
    assert f"(pid {os.getpid()})" in str(caught.value.owner)
    assert f"Port {port} on {ADDRESS}, needed for reviews-v1, is in use by" in str(caught.value)


def test_a_port_of_all_addresses_counts() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(PortBusy, match=f"pid {os.getpid()}"):
            check_free([PortNeed(address=ADDRESS, port=port, purpose="x")])


def test_free_ports_pass() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]

    check_free([PortNeed(address=ADDRESS, port=port, purpose="x")])

    assert owner_of(ADDRESS, port) is None


def test_another_address_is_no_obstacle() -> None:
    with socket.create_server((ADDRESS, 0)) as server:
        port = server.getsockname()[1]

        check_free([PortNeed(address="127.61.0.2", port=port, purpose="x")])
