"""
How HTTP is spoken to a cluster: its HttpProtocolOptions (traffic.md CL-06, DR-33 to DR-39, DR-44).

A cluster without options speaks HTTP/1.1 with Envoy's defaults.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from pilothouse._pb.envoy.config.cluster.v3 import cluster_pb2
from pilothouse._pb.envoy.config.common.matcher.v3 import matcher_pb2
from pilothouse._pb.envoy.config.core.v3 import protocol_pb2
from pilothouse._pb.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from pilothouse._pb.google.protobuf import any_pb2
from pilothouse.api.destination_rule import ConnectionPool, Http2KeepAlive
from pilothouse.model.protocols import Protocol
from pilothouse.translators.envoy.connection_settings import preserved_case
from pilothouse.translators.envoy.encoding import pack

HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
"""The key of `typed_extension_protocol_options`."""


class HttpUpstream(NamedTuple):
    """
    All that decides how HTTP is spoken to a cluster.

    `upgrades` is the mesh's h2UpgradePolicy (False for inbound clusters). `auto_sni` takes the SNI
    from the request, `auto_san` checks the certificate against it. `error_codes` are the statuses
    that count as errors for ejection; empty means 5xx. `preserves_case` writes headers of HTTP/1.x
    in the case they came in (PC-06).
    """

    protocol: Protocol
    pool: ConnectionPool | None = None
    upgrades: bool = False
    auto_sni: bool = False
    auto_san: bool = False
    error_codes: tuple[int, ...] = ()
    preserves_case: bool = False

    @property
    def keeps_case(self) -> bool:
        """Whether there are headers to keep the case of."""
        return self.preserves_case and (self.protocol.is_http or self.protocol is Protocol.AUTO)

    @property
    def follows_client(self) -> bool:
        """Whether upstream connections speak what the client speaks (DR-39)."""
        http = self.pool.http if self.pool else None
        if http is not None and http.use_client_protocol:
            return True
        return self.protocol is Protocol.AUTO and not self.is_http2

    @property
    def is_http2(self) -> bool:
        """Whether upstream connections are always HTTP/2 (CL-06, DR-38)."""
        http = self.pool.http if self.pool else None
        if http is not None and http.use_client_protocol:
            return False
        if self.protocol.is_http2:
            return True
        asked = http.h2_upgrade_policy if http else "DEFAULT"
        if asked == "UPGRADE":
            return self.protocol.is_http or self.protocol is Protocol.AUTO
        return asked == "DEFAULT" and self.upgrades and self.protocol.is_http


@lru_cache(maxsize=4096)
def http_options(upstream: HttpUpstream) -> any_pb2.Any | None:
    """Return the packed protocol options, None where HTTP/1.1 without options is meant."""
    options = http_protocol_options_pb2.HttpProtocolOptions()
    _apply_limits(options, upstream.pool)
    if upstream.auto_sni:
        options.upstream_http_protocol_options.auto_sni = True
    if upstream.auto_san:
        options.upstream_http_protocol_options.auto_san_validation = True
    _apply_error_codes(options, upstream.error_codes)
    if upstream.follows_client:
        http1 = options.use_downstream_protocol_config.http_protocol_options
        http1.SetInParent()
        _apply_case(http1, upstream)
        options.use_downstream_protocol_config.http2_protocol_options.SetInParent()
    elif upstream.is_http2:
        http2 = options.explicit_http_config.http2_protocol_options
        http2.SetInParent()
        http = upstream.pool.http if upstream.pool else None
        if http is not None:
            if http.max_concurrent_streams > 0:
                http2.max_concurrent_streams.value = http.max_concurrent_streams
            _apply_ping(http2, http.http2_keep_alive)
    elif options.ByteSize() > 0 or upstream.keeps_case:
        http1 = options.explicit_http_config.http_protocol_options
        http1.SetInParent()
        _apply_case(http1, upstream)
    else:
        return None
    return pack(options)


def _apply_case(http1: protocol_pb2.Http1ProtocolOptions, upstream: HttpUpstream) -> None:
    if upstream.keeps_case:
        http1.header_key_format.CopyFrom(preserved_case())


def _apply_limits(
    options: http_protocol_options_pb2.HttpProtocolOptions, pool: ConnectionPool | None
) -> None:
    http = pool.http if pool else None
    tcp = pool.tcp if pool else None
    idle = http.idle_timeout if http else None
    if idle is None and tcp is not None:
        idle = tcp.idle_timeout
    common = options.common_http_protocol_options
    if idle is not None:
        common.idle_timeout.FromTimedelta(idle)
    if http is not None and http.max_requests_per_connection > 0:
        common.max_requests_per_connection.value = http.max_requests_per_connection
    if tcp is not None and tcp.max_connection_duration is not None:
        common.max_connection_duration.FromTimedelta(tcp.max_connection_duration)


def _apply_ping(http2: protocol_pb2.Http2ProtocolOptions, keepalive: Http2KeepAlive | None) -> None:
    if keepalive is None:
        return
    ping = http2.connection_keepalive
    if keepalive.interval is not None:
        ping.interval.FromTimedelta(keepalive.interval)
    if keepalive.timeout is not None:
        ping.timeout.FromTimedelta(keepalive.timeout)


def _apply_error_codes(
    options: http_protocol_options_pb2.HttpProtocolOptions, codes: tuple[int, ...]
) -> None:
    rules = [_status(code) for code in codes]
    if len(rules) == 1:
        options.outlier_detection.error_matcher.CopyFrom(rules[0])
    elif rules:
        options.outlier_detection.error_matcher.or_match.rules.extend(rules)


def _status(code: int) -> matcher_pb2.MatchPredicate:
    rule = matcher_pb2.MatchPredicate()
    header = rule.http_response_headers_match.headers.add(name=":status")
    header.string_match.exact = str(code)
    return rule


def apply_http_options(cluster: cluster_pb2.Cluster, upstream: HttpUpstream) -> None:
    """Give the cluster its protocol options, if it needs any."""
    options = http_options(upstream)
    if options is not None:
        cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(options)
