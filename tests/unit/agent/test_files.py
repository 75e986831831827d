"""Names of files at the agent's socket: who may connect must not read all that the agent may."""

import os
from pathlib import Path

import pytest
from key_pairs import pair

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.agent.sds_server import SdsServer
from pilothouse.agent.secrets import MAX_FILE_BYTES, AgentSecrets

PAIR, OTHER = pair(), pair("other")


def shown(name: str) -> Secret | None:
    """Return what the agent gives for a name."""
    found = AgentSecrets().get(name)
    return None if found is None else Secret.FromString(found.data)


def test_certificates_and_keys_are_given(tmp_path: Path) -> None:
    """D-A-3: blocks of PEM, whatever stands around them."""
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"# ours\n" + PAIR.chain + OTHER.chain + OTHER.key)
    key.write_bytes(PAIR.key)
    made = shown(f"file-cert:{chain}~{key}")
    assert made is not None
    assert made.tls_certificate.certificate_chain.inline_bytes == PAIR.chain + OTHER.chain
    assert made.tls_certificate.private_key.inline_bytes == PAIR.key
    roots = shown(f"file-root:{chain}")
    assert roots is not None
    assert roots.validation_context.trusted_ca.inline_bytes == PAIR.chain + OTHER.chain


@pytest.mark.parametrize(
    "text",
    [b"root:x:0:0", b"eyJhbGciOi.token.x", PAIR.key, b""],
    ids=["passwords", "token", "key", "nothing"],
)
def test_what_is_no_certificate_is_not_given(tmp_path: Path, text: bytes) -> None:
    """D-A-3: a token, a password file, a key under the name of roots."""
    file, chain = tmp_path / "file", tmp_path / "chain.pem"
    file.write_bytes(text)
    chain.write_bytes(PAIR.chain)
    assert shown(f"file-root:{file}") is None
    assert shown(f"file-cert:{file}~{chain}") is None
    assert shown(f"file-cert:{chain}~{chain}") is None


@pytest.mark.parametrize("what", ["pipe", "folder", "endless", "large", "missing"])
def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path, what: str) -> None:
    """A pipe blocks who opens it, a device never ends; neither may stop an agent."""
    file = tmp_path / "file"
    match what:
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "endless":
            file = Path("/dev/zero")
        case "large":
            file.write_bytes(PAIR.chain + bytes(MAX_FILE_BYTES))
    assert shown(f"file-root:{file}") is None
    assert shown(f"file-cert:{file}~{file}") is None


async def test_the_folder_of_the_socket_can_be_entered(tmp_path: Path) -> None:
    """D-A-1: also where the agent is not root; the socket itself is its owner's and group's."""
    path = tmp_path / "a" / "b" / "socket"
    server = SdsServer(AgentSecrets(), path)
    await server.start()
    try:
        assert path.parent.stat().st_mode & 0o777 == 0o755
        assert path.parent.parent.stat().st_mode & 0o700 == 0o700
        assert path.stat().st_mode & 0o777 == 0o660
    finally:
        await server.stop()
