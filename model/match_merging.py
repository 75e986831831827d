"""
Match entries of a root and a delegate made one (traffic.md 3.5).

Pure functions over API values. Where a root and a delegate both speak of a thing, the delegate may
only narrow what the root says; everything else is a conflict, and the caller says so.
"""

from collections.abc import Mapping

import msgspec

from pilothouse.api.virtual_service import HttpMatch, StringMatch


def merged_matches(
    root: tuple[HttpMatch, ...], delegate: tuple[HttpMatch, ...]
) -> tuple[HttpMatch, ...] | None:
    """
    Return the entries that both lists let through; None if they conflict.

    An empty list lets everything through. Each entry of the delegate must narrow some entry of the
    root (model/virtualservice:MergeHTTPMatchRequests).
    """
    if not root or not delegate:
        return root or delegate
    merged: list[HttpMatch] = []
    for leaf in delegate:
        found = [merged_match(each, leaf) for each in root if not conflict(each, leaf)]
        if not found:
            return None
        merged.extend(found)
    return tuple(merged)


def merged_match(root: HttpMatch, leaf: HttpMatch) -> HttpMatch:
    """Return the conditions of both; the delegate's where both speak of the same."""
    return msgspec.structs.replace(
        leaf,
        name=joined_name(root.name, leaf.name),
        uri=leaf.uri or root.uri,
        scheme=leaf.scheme or root.scheme,
        method=leaf.method or root.method,
        authority=leaf.authority or root.authority,
        headers={**root.headers, **leaf.headers},
        without_headers={**root.without_headers, **leaf.without_headers},
        query_params={**root.query_params, **leaf.query_params},
        port=leaf.port or root.port,
        source_labels={**root.source_labels, **leaf.source_labels},
        source_namespace=leaf.source_namespace or root.source_namespace,
        gateways=leaf.gateways or root.gateways,
        stat_prefix=leaf.stat_prefix or root.stat_prefix,
    )


def joined_name(root: str, delegate: str) -> str:
    """Return ``root-delegate``, or the one there is."""
    return "-".join(name for name in (root, delegate) if name)


def conflict(root: HttpMatch, leaf: HttpMatch) -> str:
    """Return the field in which a delegate's entry is no narrower than the root's; "" if none."""
    for field in ("uri", "scheme", "method", "authority"):
        if _texts_conflict(getattr(root, field), getattr(leaf, field)):
            return field
    for name, (of_root, of_leaf) in {
        "headers": (root.headers, leaf.headers),
        "withoutHeaders": (root.without_headers, leaf.without_headers),
        "queryParams": (root.query_params, leaf.query_params),
    }.items():
        if _maps_conflict(of_root, of_leaf):
            return name
    if root.ignore_uri_case != leaf.ignore_uri_case:
        return "ignoreUriCase"
    if root.port and leaf.port and root.port != leaf.port:
        return "port"
    if root.source_namespace and leaf.source_namespace != root.source_namespace:
        return "sourceNamespace"
    if any(
        root.source_labels.get(key, value) != value for key, value in leaf.source_labels.items()
    ):
        return "sourceLabels"
    if root.gateways and not set(leaf.gateways) <= set(root.gateways):
        return "gateways"
    return ""


def _maps_conflict(root: Mapping[str, StringMatch], leaf: Mapping[str, StringMatch]) -> bool:
    return any(_texts_conflict(root.get(key), wanted) for key, wanted in leaf.items())


def _texts_conflict(root: StringMatch | None, leaf: StringMatch | None) -> bool:
    # As strict as upstream: regexes and bare presence are never compared, not even when equal.
    if root is None or leaf is None:
        return False
    if root.regex or leaf.regex:
        return True
    if root.exact:
        return leaf.exact != root.exact
    return not (root.prefix and (leaf.prefix or leaf.exact or "").startswith(root.prefix))
