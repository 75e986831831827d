"""
Kinds that are held but not translated in this version.

Their spec is kept as data, so that they can be listed and found; that they have no effect is said
by a finding, never by silence.
"""

from typing import Any, Final

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct

SECURITY_KINDS: Final = frozenset({"RequestAuthentication", "AuthorizationPolicy"})
"""Kinds whose absence of effect leaves something open that its author meant to close."""


class Opaque(ApiStruct, frozen=True):
    """An object of a kind without a type of its own; `meta.kind` says which."""

    meta: ObjectMeta
    spec: dict[str, Any] = {}
