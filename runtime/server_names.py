"""
What the secure port's certificate is valid for: the names by which Istio's agents verify a server.

They are istiod's (security.md C-R-12): an agent checks the first of them whatever address it dials,
or the host of that address, which an operator therefore has to add (istiod's custom host).
"""

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from pilothouse.api.names import object_name
from pilothouse.runtime.addresses import InvalidSetting

NAMESPACE: Final = "istio-system"
_KNOWN: Final = ("istiod", "istiod-remote", "istio-pilot")
_OWN: Final = ("localhost", "127.0.0.1", "::1")
_DEFAULT_REVISION: Final = "default"


def server_names(revision: str, further: Sequence[str] = ()) -> tuple[str, ...]:
    """Return all names, DNS names and IP addresses, each once; istiod's first."""
    known = [*_KNOWN]
    if revision and revision != _DEFAULT_REVISION:
        known.append(f"istiod-{revision}")
    names = (f"{name}.{NAMESPACE}.svc" for name in known)
    return tuple(dict.fromkeys((*names, f"istiod.{NAMESPACE}", *_OWN, *further)))


def check_server_name(name: str, option: str) -> None:
    """See that a name can be in a certificate. Raises: InvalidSetting."""
    try:
        ip_address(name)
    except ValueError:
        problem = object_name(name)
        if problem:
            raise InvalidSetting(option, f"{name[:253]!r} {problem}.") from None
