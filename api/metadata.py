"""
Reading `metadata` of an object into an `ObjectMeta`.

Done by hand and not by type: it is on every object's path, and only a few of its many fields
matter.
"""

import hashlib
from typing import Any

import msgspec

from pilothouse.api import names, paths
from pilothouse.api.diagnosis import Report
from pilothouse.api.kinds import Kind
from pilothouse.api.meta import ObjectMeta
from pilothouse.graph.findings import Severity

DEFAULT_NAMESPACE = "default"
"""Where an object without a namespace goes, if its kind has namespaces."""


def read_metadata(document: dict[str, Any], kind: Kind, report: Report) -> ObjectMeta | None:
    """Return the metadata of an object, or None (with the reasons reported) if it has no name."""
    raw = document.get("metadata")
    if not isinstance(raw, dict):
        message = "An object needs metadata with a name."
        report(Severity.ERROR, "MissingField", "metadata", message, "Add metadata.name.")
        return None
    name = raw.get("name")
    if not isinstance(name, str) or not name:
        wrong = "must be given" if name is None else "must be text"
        message = f"The name {wrong}."
        report(
            Severity.ERROR,
            "MissingField",
            "metadata.name",
            message,
            "Put it in quotes." if name is not None else "Add metadata.name.",
        )
        return None
    usable = True
    namespace = ""
    if kind.namespaced:
        namespace = raw.get("namespace") or DEFAULT_NAMESPACE
        problem = names.dns_label(namespace) if isinstance(namespace, str) else "must be text"
        if problem:
            message = f'The namespace "{namespace}" {problem}.'
            report(Severity.ERROR, "BadName", "metadata.namespace", message, "")
            usable = False
    problem = "" if kind.has_free_names else names.object_name(name)
    if problem:
        report(Severity.ERROR, "BadName", "metadata.name", f'The name "{name}" {problem}.', "")
        usable = False
    labels = _texts(raw, "labels", report)
    annotations = _texts(raw, "annotations", report)
    if not usable or labels is None or annotations is None:
        return None
    created = raw.get("creationTimestamp")
    return ObjectMeta(
        kind=kind.name,
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        created=created if isinstance(created, str) else "",
        generation=_generation(document, raw),
        api_version=document["apiVersion"],
        controller=_controller(raw) if kind.name == "Pod" else "",
    )


def _texts(raw: dict[str, Any], field: str, report: Report) -> dict[str, str] | None:
    found = raw.get(field)
    if not found:
        return {}
    at = paths.child("metadata", field)
    if not isinstance(found, dict):
        report(Severity.ERROR, "WrongType", at, f"The {field} must be a map of texts.", "")
        return None
    usable = True
    for name, value in found.items():
        if not isinstance(value, str):
            message = f'The value of "{name}" must be text.'
            report(Severity.ERROR, "WrongType", paths.child(at, name), message, "Put it in quotes.")
            usable = False
    return found if usable else None


def _controller(raw: dict[str, Any]) -> str:
    """Return what made the object under a generated name; whatever is odd is as if absent."""
    owners = raw.get("ownerReferences")
    if not raw.get("generateName") or not isinstance(owners, list):
        return ""
    for owner in owners:
        if isinstance(owner, dict) and owner.get("controller") is True:
            kind, name = owner.get("kind"), owner.get("name")
            return f"{kind}/{name}" if isinstance(kind, str) and isinstance(name, str) else ""
    return ""


def _generation(document: dict[str, Any], raw: dict[str, Any]) -> str:
    generation = raw.get("generation")
    if isinstance(generation, int):
        return str(generation)
    spec = document.get("spec")
    if spec is None:
        return ""
    canonical = msgspec.json.encode(spec, order="deterministic")
    return hashlib.blake2b(canonical, digest_size=4).hexdigest()
