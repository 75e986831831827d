"""
Resources as people read them: the JSON that Envoy's admin shows under ``/config_dump``.

Tools written for Envoy (istioctl proxy-config among them) read that shape. Rendering costs some
hundred microseconds a resource, so it comes in pieces and never on the way to a proxy. Private keys
are replaced as Envoy replaces them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.message import Message

from pilothouse._pb._pool import POOL, message_class
from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse.model.resource import CDS, ECDS, EDS, LDS, RDS, SDS, Resource

_REDACTED: Final = b"[redacted]"

_Entry = Callable[[Resource, dict[str, Any]], dict[str, Any]]


def _plain(field: str) -> _Entry:
    def entry(resource: Resource, data: dict[str, Any]) -> dict[str, Any]:
        return {"version_info": resource.version, field: data}

    return entry


def _listener(resource: Resource, data: dict[str, Any]) -> dict[str, Any]:
    state = {"version_info": resource.version, "listener": data}
    return {"name": resource.name, "active_state": state}


def _secret(resource: Resource, data: dict[str, Any]) -> dict[str, Any]:
    return {"name": resource.name, "version_info": resource.version, "secret": data}


_SECTIONS: Final[tuple[tuple[str, str, str, _Entry], ...]] = (
    (CDS, "ClustersConfigDump", "dynamic_active_clusters", _plain("cluster")),
    (EDS, "EndpointsConfigDump", "dynamic_endpoint_configs", _plain("endpoint_config")),
    (LDS, "ListenersConfigDump", "dynamic_listeners", _listener),
    (RDS, "RoutesConfigDump", "dynamic_route_configs", _plain("route_config")),
    (SDS, "SecretsConfigDump", "dynamic_active_secrets", _secret),
    (ECDS, "EcdsConfigDump", "ecds_filters", _plain("ecds_filter")),
)
"""Type, message of envoy.admin.v3, its list, and how an entry of the list looks."""


def resource_data(resource: Resource) -> dict[str, Any]:
    """Return a resource as plain data under the names of the proto files, its type first."""
    message = message_class(resource.type_url.rpartition("/")[2]).FromString(resource.data)
    if isinstance(message, Secret):
        _redact(message)
    data = json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=POOL
    )
    return {"@type": resource.type_url, **data}


def _redact(secret: Secret) -> None:
    certificate = secret.tls_certificate
    hidden: list[Message] = []
    if certificate.HasField("private_key"):
        hidden.append(certificate.private_key)
    if certificate.HasField("password"):
        hidden.append(certificate.password)
    hidden.extend(secret.session_ticket_keys.keys)
    if secret.HasField("generic_secret"):
        hidden.append(secret.generic_secret.secret)
        hidden.extend(secret.generic_secret.secrets.values())
    for source in hidden:
        if source.WhichOneof("specifier") in {"inline_bytes", "inline_string"}:
            source.Clear()
            source.inline_bytes = _REDACTED  # type: ignore[attr-defined]  # all are DataSources


def config_dump(
    resources: Mapping[str, Sequence[Resource]], *, awaited: Sequence[str] = ()
) -> Iterator[bytes]:
    """
    Yield the JSON of an ``envoy.admin.v3.ConfigDump``, about one resource at a time.

    `resources` are by type URL; types that are absent get no section. `awaited` names secrets that
    were asked for and are not there, which an Envoy shows as warming.
    """
    if awaited and SDS not in resources:
        resources = {**resources, SDS: ()}
    yield b'{"configs": ['
    comma = b""
    for type_url, message, list_name, entry in _SECTIONS:
        if type_url not in resources:
            continue
        yield comma + f'\n{{"@type": "type.googleapis.com/envoy.admin.v3.{message}"'.encode()
        yield f', "{list_name}": ['.encode()
        separator = b"\n"
        for resource in resources[type_url]:
            text = json.dumps(entry(resource, resource_data(resource)), separators=(", ", ": "))
            yield separator + text.encode()
            separator = b",\n"
        if type_url == SDS and awaited:
            listed = [{"name": n, "secret": {"@type": SDS, "name": n}} for n in awaited]
            yield f'], "dynamic_warming_secrets": {json.dumps(listed)[:-1]}'.encode()
        yield b"]}"
        comma = b","
    yield b"]}\n"
