"""
PeerAuthentication: whether a workload's callers must, may or must not use mutual TLS.

Types of security.istio.io (security.md S-API-1); rules across fields are in
`peer_authentication_check`. What several objects mean together is said elsewhere.
"""

from typing import Literal

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct, MatchLabels

MtlsMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


class MutualTls(ApiStruct, frozen=True):
    """A mode; UNSET inherits."""

    mode: MtlsMode = "UNSET"


class PeerAuthenticationSpec(ApiStruct, frozen=True):
    """Which workloads (all of the scope without a selector), and their mode, also by port."""

    selector: MatchLabels | None = None
    mtls: MutualTls | None = None
    port_level_mtls: dict[str, MutualTls] = {}
    """By the workload's own port number, as text: the keys of a JSON map are."""

    @property
    def labels(self) -> dict[str, str]:
        """The labels a workload must have; empty selects every workload of the scope."""
        return self.selector.match_labels if self.selector else {}


class PeerAuthentication(ApiStruct, frozen=True):
    """A PeerAuthentication object."""

    meta: ObjectMeta
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()
