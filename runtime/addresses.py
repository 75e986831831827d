"""
Listen addresses, and the rule for binding beyond this machine.

Nothing here opens a socket or asks a resolver: an address is loopback only if it says so itself.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from pilothouse.errors import InvalidConfig

LOOPBACK: Final = "127.0.0.1"
_MAX_PORT: Final = 65_535


class InvalidSetting(InvalidConfig):
    """
    A setting cannot be used as given.

    `option` is its spelling on the command line, `problem` a sentence with the way out.
    """

    def __init__(self, option: str, problem: str) -> None:
        """Say what is wrong with `option`."""
        super().__init__(option, problem)
        self.option = option
        self.problem = problem

    def __str__(self) -> str:
        """Name the option, then the problem."""
        return f"{self.option}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Address:
    """A host (an IP address or a name) and a port; port 0 means any free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """Render as ``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost never counts."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def with_port(self, port: int) -> "Address":
        """Return the same host with the port that was bound."""
        return Address(self.host, port)


def parse_address(text: str, option: str) -> Address:
    """
    Read ``HOST:PORT``.

    ``:PORT`` and ``localhost:PORT`` mean 127.0.0.1, unlike istiod, where the former means every
    interface: what is not protected yet should not be reachable by accident.

    Raises: InvalidSetting: It has no port, or a part is malformed; `option` is named.
    """
    host, colon, port = text.strip().rpartition(":")
    if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise InvalidSetting(option, f"{text!r} is not HOST:PORT; write for example 127.0.0.1:0.")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise InvalidSetting(option, f"{port!r} in {text!r} is not a port; give 0 to 65535.")
    if host.startswith("["):
        host = host[1:-1]
        try:
            ip_address(host)
        except ValueError:
            raise InvalidSetting(option, f"{host!r} in {text!r} is not an IP address.") from None
    if any(character.isspace() or character in "/@?#[]" for character in host):
        raise InvalidSetting(option, f"{host!r} in {text!r} is not a host.")
    if host in {"", "localhost"}:
        host = LOOPBACK
    return Address(host, int(port))
