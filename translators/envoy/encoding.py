"""Turning messages into bytes: deterministic, and packed into `Any` once."""

from google.protobuf.message import Message

from pilothouse._pb.google.protobuf import any_pb2

_PREFIX = "type.googleapis.com/"


def encode(message: Message) -> bytes:
    """Serialise a message; equal messages give equal bytes."""
    return message.SerializeToString(deterministic=True)


def pack(message: Message) -> any_pb2.Any:
    """Wrap a message in an `Any`."""
    return any_pb2.Any(type_url=_PREFIX + message.DESCRIPTOR.full_name, value=encode(message))
