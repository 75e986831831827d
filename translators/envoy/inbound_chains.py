"""
Which filter chains an inbound port has: the tables by mode and protocol (S-PA-4 to S-PA-7, 3.11).

Data only. Envoy chooses by transport, then by application protocol, and never goes back; so where
one row of a port names a transport, every row does.
"""

from typing import Final, NamedTuple

from pilothouse.model.authentication import MtlsMode
from pilothouse.model.protocols import Protocol
from pilothouse.translators.envoy.filter_chains import RAW, plaintext_http
from pilothouse.translators.envoy.mutual_tls import MESH_ALL, MESH_HTTP, MESH_TCP

TLS: Final = "tls"


class Row(NamedTuple):
    """One chain: what it takes, and whether it ends mutual TLS and reads HTTP."""

    is_http: bool
    transport: str = ""
    alpn: tuple[str, ...] = ()
    ends_tls: bool = False


def chain_rows(
    mode: MtlsMode, protocol: Protocol, *, accepts_http10: bool = False
) -> tuple[Row, ...]:
    """Return the chains of a port, in order of preference."""
    family = _family(protocol)
    if family is not Protocol.AUTO:
        return _DECLARED[mode, family]
    plain = plaintext_http(accepts_http10=accepts_http10).alpn
    detected = Row(is_http=True, transport=RAW, alpn=plain)
    if mode is MtlsMode.STRICT:
        return (_mutual_http(MESH_HTTP), _mutual_tcp())
    if mode is MtlsMode.DISABLE:
        return (detected, _RAW_TCP)
    return (_mutual_http(MESH_HTTP), detected, _mutual_tcp(MESH_TCP), _RAW_TCP, _OTHER_TLS)


def _family(protocol: Protocol) -> Protocol:
    if protocol.is_http:
        return Protocol.HTTP
    return Protocol.AUTO if protocol is Protocol.AUTO else Protocol.TCP


def _mutual_http(alpn: tuple[str, ...] = ()) -> Row:
    return Row(is_http=True, transport=TLS, alpn=alpn, ends_tls=True)


def _mutual_tcp(alpn: tuple[str, ...] = ()) -> Row:
    return Row(is_http=False, transport=TLS, alpn=alpn, ends_tls=True)


_RAW_TCP: Final = Row(is_http=False, transport=RAW)
_OTHER_TLS: Final = Row(is_http=False, transport=TLS)
"""TLS of the application's own, passed on as it is."""

_DECLARED: Final[dict[tuple[MtlsMode, Protocol], tuple[Row, ...]]] = {
    (MtlsMode.PERMISSIVE, Protocol.HTTP): (
        _mutual_http(MESH_ALL),
        Row(is_http=True, transport=RAW),
    ),
    (MtlsMode.PERMISSIVE, Protocol.TCP): (_mutual_tcp(MESH_ALL), _OTHER_TLS, _RAW_TCP),
    (MtlsMode.STRICT, Protocol.HTTP): (_mutual_http(),),
    (MtlsMode.STRICT, Protocol.TCP): (_mutual_tcp(),),
    # Nothing looks at the first bytes there, so that every connection is raw.
    (MtlsMode.DISABLE, Protocol.HTTP): (Row(is_http=True),),
    (MtlsMode.DISABLE, Protocol.TCP): (Row(is_http=False),),
}
