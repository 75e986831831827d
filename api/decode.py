"""
From a document's data to a row: fast when all is well, thorough when it is not.

An unknown field is a warning and the object is used without it; a wrong type, a bad value or a
broken rule is an error and the object is not used. References to other objects are not looked at.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pilothouse.api import diagnosis, support
from pilothouse.api.checks import CHECKS
from pilothouse.api.duration import Duration
from pilothouse.api.kinds import KINDS, MESH_CONFIG, MESH_NETWORKS, Kind, find, in_group
from pilothouse.api.kubernetes_core import NEVER_READ, Secret
from pilothouse.api.mesh_config import MeshConfig
from pilothouse.api.mesh_networks import MeshNetworks
from pilothouse.api.metadata import read_metadata
from pilothouse.api.opaque import SECURITY_KINDS, Opaque
from pilothouse.api.problem import Problem
from pilothouse.graph.findings import ConfigRef, Finding, Severity

_KNOWN_STATUS: Final = {
    "ServiceEntry": ("addresses", ("value", "host")),
    "WorkloadEntry": ("conditions", ("type", "status")),
}
"""Kind -> the list in its status that is read, and the fields of its items."""
_ISTIO_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
_MULTI_CLUSTER: Final = "multicluster.x-k8s.io"
_OF_A_MESH: Final = ("gateway.networking.k8s.io", _MULTI_CLUSTER)
_INSTEAD: Final = {
    # Istio reads them only where it is told to (traffic.md K8-21).
    _MULTI_CLUSTER: "Services of one name in several clusters are one anyway; serviceSettings in"
    " the mesh config keeps one within its cluster."
}
"""What to do instead of an object of a group that is not read."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """
    What a document is: its row if it can be used, and what there is to say.

    `ref` names the object even if it cannot be used (empty parts: unknown). `object` is None for
    a kind we do not hold.
    """

    ref: ConfigRef
    object: Any
    findings: tuple[Finding, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Tell whether an error kept the object from being used."""
        return self.object is None and any(
            each.severity is Severity.ERROR for each in self.findings
        )


def decode_scalar(of: type, value: Any) -> Any:
    """Decode the types msgspec does not know: durations."""
    if of is Duration and isinstance(value, str):
        return Duration.parse(value)
    raise TypeError


def expand(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, data) of each object in a document: its items if it is a List, else itself."""
    if isinstance(document, dict):
        name, items = document.get("kind"), document.get("items")
        if isinstance(name, str) and name.endswith("List") and isinstance(items, list):
            for index, each in enumerate(items):
                yield f"items[{index}]", _with_list_kind(each, document, name)
            return
    yield "", document


def _with_list_kind(item: Any, document: dict[str, Any], name: str) -> Any:
    # The items of a typed list (ServiceList) may leave out what the list says already.
    if name == "List" or not isinstance(item, dict) or "kind" in item:
        return item
    return {"apiVersion": document.get("apiVersion"), "kind": name.removesuffix("List"), **item}


def decode(document: Any) -> Decoded:
    """Decode one object (see `expand` for lists)."""
    if not isinstance(document, dict):
        ref = ConfigRef("", "", "")
        message = "This is not an object: it is no map of fields."
        return _broken(ref, "NotAnObject", message, "An object begins with apiVersion and kind.")
    kind = find(document.get("apiVersion"), document.get("kind"))
    if kind is None:
        return _unknown_kind(document)
    ref = _ref(document, kind.name, namespaced=kind.namespaced)
    findings: list[Finding] = []
    report = _reporter(ref, findings)
    meta = read_metadata(document, kind, report)
    if meta is None:
        return Decoded(ref, None, tuple(findings))
    ref = meta.ref()
    report = _reporter(ref, findings)
    if kind.is_istio:
        body: dict[str, Any] = {"meta": meta, "spec": document.get("spec") or {}}
        if not _ISTIO_FIELDS.issuperset(document):
            _unknown_top_fields(document, report)
        if kind.name in _KNOWN_STATUS and document.get("status"):
            body["status"] = _known_status(kind.name, document["status"])
    else:
        body = {**document, "meta": meta}
    told = _discreet(report) if kind.row is Secret else report
    row = _convert(body, kind.row, told, findings, strict=kind.is_istio)
    if row is not None and kind.is_istio:
        _report_untranslated(kind, row, body["spec"], report)
    if isinstance(row, Secret) and row.type in NEVER_READ:
        return Decoded(ref, None)
    if row is not None:
        row = _checked(kind.name, row, report, findings)
    return Decoded(ref, row, tuple(findings))


def decode_mesh_config(data: Any) -> Decoded:
    """Decode the mesh config; the row is a `MeshConfig`, and `ref` is ``MeshConfig mesh``."""
    return _decode_mesh(MESH_CONFIG, MeshConfig, data)


def decode_mesh_networks(data: Any) -> Decoded:
    """Decode the networks; the row is a `MeshNetworks`, and `ref` is ``MeshNetworks mesh``."""
    return _decode_mesh(MESH_NETWORKS, MeshNetworks, data)


def _decode_mesh(kind: str, of: type[msgspec.Struct], data: Any) -> Decoded:
    ref = ConfigRef(kind, "", "mesh")
    findings: list[Finding] = []
    report = _reporter(ref, findings)
    row = _convert({} if data is None else data, of, report, findings, strict=True)
    if row is not None and isinstance(data, dict):
        _report_fields(data, of, "", report)
    if row is not None:
        row = _checked(kind, row, report, findings)
    return Decoded(ref, row, tuple(findings))


def _convert(
    body: Any,
    of: type[msgspec.Struct],
    report: diagnosis.Report,
    findings: list[Finding],
    *,
    strict: bool,
) -> Any:
    try:
        return msgspec.convert(body, of, dec_hook=decode_scalar)
    except (msgspec.ValidationError, RecursionError) as error:
        reason = str(error)
    clean = diagnosis.diagnose(body, of, "", report, strict=strict)
    if _has_error(findings):
        return None
    try:
        return msgspec.convert(clean, of, dec_hook=decode_scalar)
    except (msgspec.ValidationError, RecursionError):
        report(Severity.ERROR, "BadValue", "", f"The object cannot be read: {reason}.", "")
        return None


def _checked(name: str, row: Any, report: diagnosis.Report, findings: list[Finding]) -> Any:
    check: Callable[[Any], Iterator[Problem]] | None = CHECKS.get(name)
    if check is None:
        return row
    for problem in check(row):
        report(problem.severity, problem.code, problem.path, problem.message, problem.remedy)
    return None if _has_error(findings) else row


def _has_error(findings: list[Finding]) -> bool:
    # Two security kinds are held although an error says that they are not enforced.
    return any(
        each.severity is Severity.ERROR and each.code != "KindNotTranslated" for each in findings
    )


def _reporter(ref: ConfigRef, findings: list[Finding]) -> diagnosis.Report:
    def report(severity: Severity, code: str, path: str, message: str, remedy: str) -> None:
        findings.append(Finding(severity, code, ref.at(path), message, remedy))

    return report


def _discreet(report: diagnosis.Report) -> diagnosis.Report:
    # What is of the wrong type is usually quoted, and a password may well look like a number.
    def told(severity: Severity, code: str, path: str, message: str, remedy: str) -> None:
        if path.startswith(("data", "stringData")):
            message = "This cannot be a value here; it is not shown, as it may be secret."
        report(severity, code, path, message, remedy)

    return told


def _report_untranslated(
    kind: Kind, row: Any, spec: dict[str, Any], report: diagnosis.Report
) -> None:
    if isinstance(row, Opaque):
        if kind.name in SECURITY_KINDS:
            message = f"{kind.name} is not enforced in this version: nothing is closed by it."
            remedy = "Do not rely on it here; protect the workload by other means."
            report(Severity.ERROR, "KindNotTranslated", "", message, remedy)
        else:
            message = f"{kind.name} has no effect in this version."
            report(Severity.WARNING, "KindNotTranslated", "", message, "")
        return
    _report_fields(spec, type(row.spec), "spec", report)


def _report_fields(
    data: dict[str, Any], of: type[msgspec.Struct], path: str, report: diagnosis.Report
) -> None:
    for at, name, fate in support.unsupported(data, of, path):
        if fate.outcome is support.Outcome.NO_EFFECT:
            message = f'"{name}" has no effect: {fate.reason}.'
            report(Severity.WARNING, "FieldNotTranslated", at, message, "Remove it.")
        else:
            message = f'"{name}" is not translated in this version; it has no effect.'
            report(Severity.WARNING, "FieldNotTranslated", at, message, "")


def _unknown_top_fields(document: dict[str, Any], report: diagnosis.Report) -> None:
    for name in document.keys() - _ISTIO_FIELDS:
        remedy = diagnosis.did_you_mean(name, _ISTIO_FIELDS) or "Move it into spec or remove it."
        message = f'There is no field "{name}" here; it is left out.'
        report(Severity.WARNING, "UnknownField", name, message, remedy)


def _known_status(kind: str, status: Any) -> Any:
    # Status is written by controllers; what we do not read of it is not config.
    name, fields = _KNOWN_STATUS[kind]
    listed = status.get(name) if isinstance(status, dict) else None
    if not isinstance(listed, list):
        return None
    items = (each for each in listed if isinstance(each, dict))
    texts = ({field: each.get(field) for field in fields} for each in items)
    return {name: [each for each in texts if all(isinstance(text, str) for text in each.values())]}


def _unknown_kind(document: dict[str, Any]) -> Decoded:
    api_version, name = document.get("apiVersion"), document.get("kind")
    ref = _ref(document, name if isinstance(name, str) else "", namespaced=True)
    if not isinstance(api_version, str) or not isinstance(name, str):
        message = "This is not an object: apiVersion and kind must be given as text."
        return _broken(ref, "NotAnObject", message, "An object begins with apiVersion and kind.")
    known = in_group(api_version, name)
    if known is not None:
        message = f'The kind {name} is not known in version "{api_version}".'
        return _broken(
            ref.at("apiVersion"),
            "UnknownVersion",
            message,
            f"Write one of {', '.join(known.api_versions)}.",
        )
    group = api_version.rpartition("/")[0]
    if any(each.group == group for each in KINDS if each.is_istio):
        message = f'There is no kind "{name}" in {api_version}.'
        names = (each.name for each in KINDS if each.group == group)
        remedy = diagnosis.did_you_mean(name, names)
        return _broken(ref.at("kind"), "UnknownKind", message, remedy)
    severity = Severity.WARNING if group in _OF_A_MESH else Severity.INFO
    message = f"{name} ({api_version}) is not read by this version."
    finding = Finding(severity, "KindIgnored", ref, message, _INSTEAD.get(group, ""))
    return Decoded(ref, None, (finding,))


def _broken(ref: ConfigRef, code: str, message: str, remedy: str) -> Decoded:
    finding = Finding(Severity.ERROR, code, ref, message, remedy)
    return Decoded(ref.at(""), None, (finding,))


def _ref(document: dict[str, Any], kind: str, *, namespaced: bool) -> ConfigRef:
    meta = document.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    name, namespace = meta.get("name"), meta.get("namespace")
    fallback = "default" if namespaced else ""
    return ConfigRef(
        kind,
        namespace if isinstance(namespace, str) and namespace and namespaced else fallback,
        name if isinstance(name, str) else "",
    )
