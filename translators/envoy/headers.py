"""
Header changes of a rule or of one of its destinations (traffic.md VS-21, VS-22).

Envoy forbids changes of pseudo headers and of the host header; a request's authority has a field
of its own, so it comes out apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse._pb.envoy.config.core.v3 import base_pb2
from pilothouse._pb.envoy.config.route.v3 import route_components_pb2
from pilothouse.api.virtual_service import HeaderOperations, Headers
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.translators.envoy.header_formats import acceptable

_AUTHORITY: Final = frozenset({":authority", "host"})
_OVERWRITE: Final = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND: Final = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_NO_OPERATIONS: Final = HeaderOperations()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChanges:
    """Changes in Envoy's shape; `authority` is empty where the request keeps its own."""

    request_add: tuple[base_pb2.HeaderValueOption, ...] = ()
    request_remove: tuple[str, ...] = ()
    response_add: tuple[base_pb2.HeaderValueOption, ...] = ()
    response_remove: tuple[str, ...] = ()
    authority: str = ""

    def append_to(
        self,
        target: route_components_pb2.Route | route_components_pb2.WeightedCluster.ClusterWeight,
    ) -> None:
        """Append to what a route or weighted cluster changes already; leaves authority alone."""
        target.request_headers_to_add.extend(self.request_add)
        target.request_headers_to_remove.extend(self.request_remove)
        target.response_headers_to_add.extend(self.response_add)
        target.response_headers_to_remove.extend(self.response_remove)


NO_CHANGES: Final = HeaderChanges()


def header_changes(wanted: Headers | None) -> HeaderChanges:
    """Translate header operations: first what is set, then what is added, each by name."""
    if wanted is None:
        return NO_CHANGES
    request = wanted.request or _NO_OPERATIONS
    response = wanted.response or _NO_OPERATIONS
    return HeaderChanges(
        request_add=(*_options(request.set, _OVERWRITE), *_options(request.add, _APPEND)),
        request_remove=tuple(name for name in request.remove if not _is_internal(name)),
        response_add=(*_options(response.set, _OVERWRITE), *_options(response.add, _APPEND)),
        response_remove=tuple(name for name in response.remove if not _is_internal(name)),
        authority=_authority(request.set) or _authority(request.add),
    )


def header_findings(wanted: Headers | None, ref: ConfigRef) -> Iterator[Finding]:
    """Say which operations of the headers at `ref` are not done, or not as written."""
    if wanted is None:
        return
    for side, operations in (("request", wanted.request), ("response", wanted.response)):
        if operations is None:
            continue
        place = ref.at(f"{ref.path}.{side}")
        settable = _AUTHORITY if side == "request" else frozenset[str]()
        for verb, values in (("set", operations.set), ("add", operations.add)):
            for name, value in values.items():
                if _is_internal(name) and name.lower() not in settable:
                    yield _unchangeable(place, verb, name, side)
                elif not _is_internal(name) and acceptable(value) != value:
                    yield _unknown_format(place, verb, name, value)
        for name in operations.remove:
            if _is_internal(name):
                yield _unchangeable(place, "remove", name, side)


def _options(
    headers: Mapping[str, str], action: base_pb2.HeaderValueOption.HeaderAppendAction
) -> Iterator[base_pb2.HeaderValueOption]:
    for name in sorted(headers):
        if not _is_internal(name):
            yield base_pb2.HeaderValueOption(
                header=base_pb2.HeaderValue(key=name, value=acceptable(headers[name])),
                append_action=action,
            )


def _authority(headers: Mapping[str, str]) -> str:
    named = [headers[name] for name in sorted(headers) if name.lower() in _AUTHORITY]
    return named[-1] if named else ""


def _is_internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _unchangeable(place: ConfigRef, verb: str, name: str, side: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "HeaderNotChangeable",
        place.at(f"{place.path}.{verb}"),
        f"Envoy does not let a route {verb} {name!r} of a {side}; left out.",
        "Remove it; for the path or authority of requests use rewrite.",
    )


def _unknown_format(place: ConfigRef, verb: str, name: str, value: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "HeaderFormatUnknown",
        place.at(f"{place.path}.{verb}"),
        f"In {value!r} for {name} a percent sign starts no command that Envoy knows; "
        "it is sent as a percent sign.",
        "Write %% for a percent sign, or correct the command.",
    )
