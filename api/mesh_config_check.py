"""Rules across the fields of the mesh config."""

from collections.abc import Iterator
from itertools import chain

from pilothouse.api import names
from pilothouse.api.connection_check import (
    check_client_tls,
    check_keepalive,
    check_outliers,
    check_pool,
)
from pilothouse.api.locality_check import check_locality, check_zone_aware
from pilothouse.api.mesh_config import CertificateData, MeshConfig, MeshTls
from pilothouse.api.problem import Problem, duration, export_to, port, warning
from pilothouse.api.proxy_config import check_connection_settings, check_proxy_headers
from pilothouse.api.root_certificates import BadRoots, bundle_url, read_roots
from pilothouse.api.tls_names import CIPHERS, CURVES


def check(config: MeshConfig) -> Iterator[Problem]:
    """Yield what is wrong with the mesh config."""
    yield from port(config.proxy_listen_port, "proxyListenPort", optional=True)
    yield from port(config.proxy_inbound_listen_port, "proxyInboundListenPort", optional=True)
    yield from port(config.proxy_http_port, "proxyHttpPort", optional=True)
    if config.proxy_listen_port and config.proxy_listen_port == config.proxy_inbound_listen_port:
        message = "proxyListenPort and proxyInboundListenPort cannot be the same."
        yield Problem("proxyInboundListenPort", message)
    yield from duration(config.connect_timeout, "connectTimeout")
    yield from duration(config.dns_refresh_rate, "dnsRefreshRate")
    yield from _check_exports(config)
    problem = names.dns_label(config.root_namespace)
    if problem:
        yield Problem("rootNamespace", f'"{config.root_namespace}" {problem}.')
    for path, domain in (
        ("trustDomain", config.trust_domain),
        *((f"trustDomainAliases[{i}]", each) for i, each in enumerate(config.trust_domain_aliases)),
        *(
            (f"caCertificates[{i}].trustDomains[{j}]", each)
            for i, data in enumerate(config.ca_certificates)
            for j, each in enumerate(data.trust_domains)
        ),
    ):
        problem = names.host(domain)
        if problem or "*" in domain:
            yield Problem(path, f'The trust domain "{domain}" is not a DNS name.')
    yield from _check_localities(config)
    outbound = config.outbound_traffic_policy
    if outbound.tls is not None:
        yield from check_client_tls(outbound.tls, "outboundTrafficPolicy.tls")
        if outbound.mode != "ALLOW_ANY_DYNAMIC_DNS":
            yield warning(
                "outboundTrafficPolicy.tls",
                f"With the mode {outbound.mode} nothing is sent over TLS on its account.",
                "Set the mode ALLOW_ANY_DYNAMIC_DNS, or remove tls.",
            )
    if config.tcp_keepalive is not None:
        yield from check_keepalive(config.tcp_keepalive, "tcpKeepalive")
    defaults = config.default_traffic_policy
    if defaults is not None and defaults.connection_pool is not None:
        yield from check_pool(defaults.connection_pool, "defaultTrafficPolicy.connectionPool")
    if defaults is not None and defaults.outlier_detection is not None:
        path = "defaultTrafficPolicy.outlierDetection"
        yield from check_outliers(defaults.outlier_detection, path)
    own = config.default_config
    if own.proxy_headers is not None:
        yield from check_proxy_headers(own.proxy_headers, "defaultConfig.proxyHeaders")
    if own.connection_settings is not None:
        path = "defaultConfig.connectionSettings"
        yield from check_connection_settings(own.connection_settings, path)
    yield from _check_tls(config)
    yield from _check_visibility(config)
    yield from chain.from_iterable(
        _check_roots(data, f"caCertificates[{index}]")
        for index, data in enumerate(config.ca_certificates)
    )


def _check_exports(config: MeshConfig) -> Iterator[Problem]:
    for path, export in (
        ("defaultServiceExportTo", config.default_service_export_to),
        ("defaultVirtualServiceExportTo", config.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", config.default_destination_rule_export_to),
    ):
        yield from export_to(export, path, namespace="", allows_nobody=True)


def _check_visibility(config: MeshConfig) -> Iterator[Problem]:
    wanted, path = config.service_entry_visibility, "serviceEntryVisibility"
    if wanted is None:
        return
    if not wanted.apply_to_sidecars:
        message = "Without applyToSidecars it is for proxies that are not served here."
        remedy = "Set applyToSidecars, or use exportTo."
        yield warning(path, message, remedy, "FieldNotTranslated")
    for index, policy in enumerate(wanted.policies):
        for number, rule in enumerate(policy.matching_rules):
            if rule.namespace_selector is None:
                at = f"{path}.policies[{index}].matchingRules[{number}]"
                message = "A rule without a namespaceSelector matches nothing, nor does its policy."
                yield warning(at, message, "Add one; {} matches every namespace.")


def _check_roots(data: CertificateData, path: str) -> Iterator[Problem]:
    """What is wrong with added roots leaves them out and the rest of the settings in force."""
    if data.pem and data.spiffe_bundle_url:
        message = "Only one of pem and spiffeBundleUrl counts; it is pem."
        yield warning(path, message, "Make two entries of it.")
    if data.pem:
        try:
            read_roots(data.pem.encode())
        except BadRoots as bad:
            message = f"{bad} None of these roots is trusted."
            remedy = "Put in certificates of authorities as PEM, and nothing else."
            yield warning(f"{path}.pem", message, remedy, "RootsUnusable")
    elif data.spiffe_bundle_url:
        try:
            bundle_url(data.spiffe_bundle_url)
        except BadRoots as bad:
            message = f"{bad} No root is fetched from there."
            remedy = "Give the https URL of a SPIFFE bundle endpoint."
            yield warning(f"{path}.spiffeBundleUrl", message, remedy, "RootsUnusable")


def _check_tls(config: MeshConfig) -> Iterator[Problem]:
    if config.tls_defaults is not None:
        yield from _check_tls_names(config.tls_defaults, "tlsDefaults")
    if config.mesh_mtls is not None:
        yield from _check_tls_names(config.mesh_mtls, "meshMTLS")
        if config.mesh_mtls.ecdh_curves:
            message = "Curves cannot be chosen for mutual TLS of the mesh."
            yield Problem("meshMTLS.ecdhCurves", message, "Remove it; tlsDefaults has curves.")


def _check_tls_names(tls: MeshTls, path: str) -> Iterator[Problem]:
    for field, values, known in (
        ("ecdhCurves", tls.ecdh_curves, CURVES),
        ("cipherSuites", tls.cipher_suites, CIPHERS),
    ):
        for index, value in enumerate(values):
            at = f"{path}.{field}[{index}]"
            if value not in known:
                message = f'"{value}" is not known to Envoy and is left out.'
                yield warning(at, message, f"Known are {', '.join(sorted(known))}.")
            elif value in values[:index]:
                yield warning(at, f'"{value}" is listed twice.', "Remove one.")


def _check_localities(config: MeshConfig) -> Iterator[Problem]:
    if config.locality_lb_setting is not None:
        # Rules bring the ejection that mesh-wide failover needs.
        yield from check_locality(
            config.locality_lb_setting, "localityLbSetting", has_ejection=True
        )
    if config.zone_aware_lb_setting is not None:
        yield from check_zone_aware(
            config.zone_aware_lb_setting, "zoneAwareLbSetting", has_ejection=True
        )
