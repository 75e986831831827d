"""Ports are told whole, and a port that cannot be had is explained."""

import json
import socket
from pathlib import Path

from pilothouse.runtime.addresses import Address
from pilothouse.runtime.ports import BoundPorts, CannotListen, why_not


def test_ports_file_is_json(tmp_path: Path) -> None:
    """Whoever waits for the file finds it complete; nothing else is left behind."""
    file = tmp_path / "ports.json"
    file.write_text("old")
    BoundPorts(
        grpc=Address("127.0.0.1", 1), secure_grpc=None, monitoring=Address("127.0.0.1", 3)
    ).write(file)
    assert json.loads(file.read_text()) == {"grpc": 1, "secure_grpc": None, "monitoring": 3}
    assert list(tmp_path.iterdir()) == [file]


def test_reason_is_the_operating_systems() -> None:
    """A busy port and a foreign address have different reasons."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert why_not(Address("127.0.0.1", busy.getsockname()[1])) == "address already in use"
    assert why_not(Address("192.0.2.1", 0)) == "cannot assign requested address"


def test_sentence_names_address_and_option() -> None:
    """One sentence says where, which option, why and what to do."""
    error = CannotListen("--grpc-addr", Address("127.0.0.1", 15010), "address already in use")
    assert str(error) == (
        "Cannot listen on 127.0.0.1:15010 (--grpc-addr): address already in use. Free it, or"
        " choose another address with --grpc-addr HOST:PORT (port 0: any free)."
    )
