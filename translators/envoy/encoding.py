"""
Turning messages into bytes: deterministic, and packed into `Any` once.

What Envoy would refuse is not encoded: one such resource would cost a proxy the whole response.
"""

from google.protobuf.message import Message

from pilothouse._pb.google.protobuf import any_pb2
from pilothouse.graph.findings import ConfigRef, Finding, Severity, Withheld
from pilothouse.translators.envoy.constraints import Violation, violation
from pilothouse.translators.envoy.provenance import described_sources

_PREFIX = "type.googleapis.com/"
CODE = "WouldBeRefused"


def encode(message: Message) -> bytes:
    """
    Serialise a message; equal messages give equal bytes.

    Raises: Withheld: Envoy would refuse it.
    """
    found = violation(message)
    if found is not None:
        raise Withheld(_finding(message, found))
    return message.SerializeToString(deterministic=True)


def pack(message: Message) -> any_pb2.Any:
    """Wrap a message in an `Any`; it is checked with the message it becomes a part of."""
    value = message.SerializeToString(deterministic=True)
    return any_pb2.Any(type_url=_PREFIX + message.DESCRIPTOR.full_name, value=value)


def _finding(message: Message, found: Violation) -> Finding:
    name = getattr(message, "name", "") or getattr(message, "cluster_name", "")
    kind = message.DESCRIPTOR.name
    sources = described_sources(found.described)
    return Finding(
        Severity.ERROR,
        CODE,
        # The innermost object: a route's VirtualService rather than the service it is for.
        sources[-1] if sources else ConfigRef(kind=kind, namespace="", name=name),
        f"Envoy would refuse {kind} {name}: {found.path} {found.text}. It is withheld; proxies "
        "keep what they had of it.",
        "Correct the field that this comes from; if none is named, please report it with the "
        "object's YAML.",
    )
