"""
VirtualService: how requests to a host are routed.

Types of networking.istio.io; rules across fields are in `virtual_service_check`.
"""

from typing import Literal

import msgspec

from pilothouse.api.duration import Duration
from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import ApiStruct


class PortSelector(ApiStruct, frozen=True):
    """A port of a service by number."""

    number: int = 0


class Destination(ApiStruct, frozen=True):
    """Where to send: a host of the registry, optionally one of its subsets and ports."""

    host: str
    subset: str = ""
    port: PortSelector | None = None


class StringMatch(ApiStruct, frozen=True):
    """One of exact, prefix or regex (RE2, the whole text); none of them: any present value."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class Percent(ApiStruct, frozen=True):
    """A share in percent, 0.0 to 100.0."""

    value: float = 0.0


class HeaderOperations(ApiStruct, frozen=True):
    """Header changes: overwrite, append, remove."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(ApiStruct, frozen=True):
    """Header changes on the way there and back."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HttpMatch(ApiStruct, frozen=True):
    """HTTPMatchRequest: all of the given conditions must hold."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    query_params: dict[str, StringMatch] = {}
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch] = {}
    source_namespace: str = ""
    stat_prefix: str = ""

    @property
    def is_for_all(self) -> bool:
        """Whether the entry is for every listener and client."""
        return not (self.port or self.gateways or self.source_labels or self.source_namespace)


class HttpRouteDestination(ApiStruct, frozen=True):
    """A destination with its weight among its siblings and its own header changes."""

    destination: Destination
    weight: int = 0
    headers: Headers | None = None


class RouteDestination(ApiStruct, frozen=True):
    """A destination of a TLS or TCP route with its weight among its siblings."""

    destination: Destination
    weight: int = 0


RedirectPort = Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]


class HttpRedirect(ApiStruct, frozen=True):
    """An HTTP redirect; at most one of `port` and `derive_port`. `redirect_code` 0 means 301."""

    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    port: int | None = None
    derive_port: RedirectPort | None = None
    scheme: str = ""
    redirect_code: int = 0


class HttpBody(ApiStruct, frozen=True):
    """A response body: text, or bytes (base64 in the document)."""

    string: str | None = None
    bytes_: bytes | None = msgspec.field(name="bytes", default=None)


class HttpDirectResponse(ApiStruct, frozen=True):
    """A fixed answer given by the proxy itself."""

    status: int
    body: HttpBody | None = None


class Delegate(ApiStruct, frozen=True):
    """Another VirtualService whose routes stand in this place; no namespace means our own."""

    name: str = ""
    namespace: str = ""


class RegexRewrite(ApiStruct, frozen=True):
    """Rewrite the path by an RE2 pattern; the replacement may name its groups."""

    match: str = ""
    rewrite: str = ""


class HttpRewrite(ApiStruct, frozen=True):
    """Changes of path and authority before the request goes on."""

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HttpRetry(ApiStruct, frozen=True):
    """Retry policy; `attempts` 0 turns retries off."""

    attempts: int = 0
    per_try_timeout: Duration | None = None
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: Duration | None = None


class FaultDelay(ApiStruct, frozen=True):
    """Delay a share of requests."""

    percent: int = 0
    fixed_delay: Duration | None = None
    exponential_delay: Duration | None = None
    percentage: Percent | None = None


class FaultAbort(ApiStruct, frozen=True):
    """Fail a share of requests; one of the three kinds of error."""

    http_status: int | None = None
    grpc_status: str | None = None
    http2_error: str | None = None
    percentage: Percent | None = None


class HttpFault(ApiStruct, frozen=True):
    """HTTPFaultInjection: delay, abort or both."""

    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HttpMirror(ApiStruct, frozen=True):
    """Copy a share of requests to a destination; no percentage means all."""

    destination: Destination
    percentage: Percent | None = None


UnmatchedPreflights = Literal["UNSPECIFIED", "FORWARD", "IGNORE"]


class CorsPolicy(ApiStruct, frozen=True):
    """Cross-origin rules answered by the proxy."""

    allow_origin: tuple[str, ...] = ()
    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Duration | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: UnmatchedPreflights = "UNSPECIFIED"


class HttpRoute(ApiStruct, frozen=True):
    """An HTTP rule: any of `match`, then one of route, redirect, direct response, delegate."""

    name: str = ""
    match: tuple[HttpMatch, ...] = ()
    route: tuple[HttpRouteDestination, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: HttpDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HttpRewrite | None = None
    timeout: Duration | None = None
    retries: HttpRetry | None = None
    fault: HttpFault | None = None
    mirror: Destination | None = None
    mirrors: tuple[HttpMirror, ...] = ()
    mirror_percent: int | None = None
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class TlsMatch(ApiStruct, frozen=True):
    """TLSMatchAttributes: conditions on a TLS connection that is passed through."""

    sni_hosts: tuple[str, ...]
    destination_subnets: tuple[str, ...] = ()
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class TlsRoute(ApiStruct, frozen=True):
    """A rule for TLS connections routed by SNI."""

    match: tuple[TlsMatch, ...]
    route: tuple[RouteDestination, ...] = ()


class L4Match(ApiStruct, frozen=True):
    """L4MatchAttributes: conditions on a TCP connection."""

    destination_subnets: tuple[str, ...] = ()
    port: int = 0
    source_subnet: str = ""
    source_labels: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""


class TcpRoute(ApiStruct, frozen=True):
    """A rule for TCP connections."""

    match: tuple[L4Match, ...] = ()
    route: tuple[RouteDestination, ...] = ()


class VirtualServiceSpec(ApiStruct, frozen=True):
    """Hosts, where the rules apply (empty: the mesh), the rules by protocol, and visibility."""

    hosts: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[TlsRoute, ...] = ()
    tcp: tuple[TcpRoute, ...] = ()
    export_to: tuple[str, ...] = ()


class VirtualService(ApiStruct, frozen=True):
    """A VirtualService object."""

    meta: ObjectMeta
    spec: VirtualServiceSpec = VirtualServiceSpec()
