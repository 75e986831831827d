"""
The exceptions Pilothouse raises on purpose.

    MeshError
    |- InvalidConfig      an object or a setting cannot be accepted as written
    |- SourceError        a source of config cannot be read
    |- ProtocolError      a peer broke the protocol; the stream ends with a gRPC status
    |- IssueRefused       a certificate may not be issued
    `- QueryFailed        a graph node has no value (the cause is chained)

Rooms may add subclasses. Each carries attributes for machines and one sentence for people.
This module imports nothing of ours.
"""


class MeshError(Exception):
    """Root of everything Pilothouse raises on purpose."""


class InvalidConfig(MeshError):
    """An object or a setting cannot be accepted as written."""


class SourceError(MeshError):
    """A source of config cannot be read."""


class ProtocolError(MeshError):
    """A peer broke the protocol."""


class IssueRefused(MeshError):
    """A certificate may not be issued."""


class QueryFailed(MeshError):
    """A node of the graph has no value."""
