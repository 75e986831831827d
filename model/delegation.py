"""
Delegation: a VirtualService's HTTP rules with those of its delegates in place (traffic.md 3.5).

One level: a delegate of a delegate is left out, and so is everything else that does not fit, each
with a finding. Short host names are made full before rules of two namespaces meet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec

from pilothouse.api.meta import ObjectKey, ObjectMeta
from pilothouse.api.virtual_service import Destination, HttpRoute, VirtualService
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.hosts import resolve_short_name
from pilothouse.model.inputs import VIRTUAL_SERVICES
from pilothouse.model.match_merging import conflict, joined_name, merged_matches
from pilothouse.model.mesh import domain, mesh_config
from pilothouse.model.visibility import is_discovered, is_exported

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    An HTTP rule and who wrote it.

    `owner` and `path` are where the rule stands; for a delegate's rule `delegated_at` is the path
    of the root's rule that stands for it, else empty.
    """

    http: HttpRoute
    owner: ObjectMeta
    path: str
    delegated_at: str = ""

    @property
    def ref(self) -> ConfigRef:
        """Where the rule stands."""
        return self.owner.ref(self.path)


@query
def http_rules(ctx: Ctx, key: ObjectKey) -> tuple[Rule, ...]:
    """Return the HTTP rules of a VirtualService in order, delegates' rules in place (VS-25)."""
    row = ctx.row(VIRTUAL_SERVICES, key)
    if row is None:
        return ()
    rules: list[Rule] = []
    for rule in written_rules(row):
        if rule.http.delegate is None:
            rules.append(rule)
        else:
            rules.extend(_delegated(ctx, row, rule))
    return tuple(rules)


@query
def writers(ctx: Ctx, key: ObjectKey) -> tuple[ConfigRef, ...]:
    """Return the VirtualService and its delegates."""
    own = ConfigRef("VirtualService", key.namespace, key.name)
    owners = (rule.owner.ref() for rule in ctx.get(http_rules, key))
    return tuple(dict.fromkeys((own, *owners)))


def written_rules(row: VirtualService) -> tuple[Rule, ...]:
    """Return the HTTP rules that stand in a VirtualService itself."""
    return tuple(
        Rule(http=http, owner=row.meta, path=f"spec.http[{index}]")
        for index, http in enumerate(row.spec.http)
    )


def _delegated(ctx: Ctx, root: VirtualService, rule: Rule) -> Iterator[Rule]:
    delegate = _delegate(ctx, root, rule)
    if delegate is None:
        return
    suffix = ctx.get(domain, None)
    for index, leaf in enumerate(delegate.spec.http):
        path = f"spec.http[{index}]"
        if leaf.delegate is not None:
            ctx.report(
                _left_out(
                    delegate,
                    f"{path}.delegate",
                    "A delegate cannot delegate; this rule is left out.",
                    "Write the rules here, or let the root delegate to both.",
                )
            )
            continue
        matches = merged_matches(rule.http.match, leaf.match)
        if matches is None:
            ctx.report(_conflict(root, rule, delegate, path, leaf))
            continue
        names = _Names(root.meta.namespace, delegate.meta.namespace, suffix)
        filled = _merged(rule.http, leaf, names)
        yield Rule(
            http=msgspec.structs.replace(filled, match=matches),
            owner=delegate.meta,
            path=path,
            delegated_at=rule.path,
        )


def _delegate(ctx: Ctx, root: VirtualService, rule: Rule) -> VirtualService | None:
    named = rule.http.delegate
    if named is None:  # pragma: no cover (callers ask for rules that delegate)
        return None
    key = ObjectKey(named.namespace or root.meta.namespace, named.name)
    row = ctx.row(VIRTUAL_SERVICES, key)
    at = f"{rule.path}.delegate"
    if row is None or not is_discovered(ctx, key.namespace):
        problem = f"There is no VirtualService {key.namespace}/{key.name}; this rule is left out."
        ctx.report(_left_out(root, at, problem, "Check the name and the namespace."))
        return None
    if row.spec.hosts:
        problem = (
            f"{key.namespace}/{key.name} has hosts, so it is no delegate; the rule is left out."
        )
        ctx.report(_left_out(root, at, problem, "Remove its hosts and gateways."))
        return None
    exports = row.spec.export_to or ctx.get(mesh_config, None).default_virtual_service_export_to
    if not is_exported(exports, key.namespace, root.meta.namespace):
        problem = (
            f"{key.namespace}/{key.name} is not exported to {root.meta.namespace}; this rule is "
            "left out."
        )
        ctx.report(_left_out(root, at, problem, "Add the namespace to the delegate's exportTo."))
        return None
    return row


class _Names(NamedTuple):
    """Whose namespace short host names belong to."""

    of_root: str
    of_delegate: str
    suffix: str


def _merged(root: HttpRoute, leaf: HttpRoute, names: _Names) -> HttpRoute:
    # What the delegate leaves unset, the root fills in.
    own = _with_full_names(leaf, names.of_delegate, names.suffix)
    given = _with_full_names(root, names.of_root, names.suffix)
    return msgspec.structs.replace(
        own,
        name=joined_name(given.name, own.name),
        rewrite=_first(own.rewrite, given.rewrite),
        direct_response=_first(own.direct_response, given.direct_response),
        timeout=_first(own.timeout, given.timeout),
        retries=_first(own.retries, given.retries),
        fault=_first(own.fault, given.fault),
        mirror=_first(own.mirror, given.mirror),
        mirrors=own.mirrors or given.mirrors,
        mirror_percent=_first(own.mirror_percent, given.mirror_percent),
        mirror_percentage=_first(own.mirror_percentage, given.mirror_percentage),
        cors_policy=_first(own.cors_policy, given.cors_policy),
        headers=_first(own.headers, given.headers),
    )


def _with_full_names(http: HttpRoute, namespace: str, suffix: str) -> HttpRoute:
    def full(destination: Destination) -> Destination:
        host = resolve_short_name(destination.host, namespace, suffix)
        return msgspec.structs.replace(destination, host=host)

    replace = msgspec.structs.replace
    return replace(
        http,
        route=tuple(replace(each, destination=full(each.destination)) for each in http.route),
        mirror=full(http.mirror) if http.mirror else None,
        mirrors=tuple(replace(each, destination=full(each.destination)) for each in http.mirrors),
    )


def _first(own: T | None, inherited: T | None) -> T | None:
    return inherited if own is None else own


def _conflict(
    root: VirtualService, rule: Rule, delegate: VirtualService, path: str, leaf: HttpRoute
) -> Finding:
    fields = sorted({conflict(ours, theirs) for theirs in leaf.match for ours in rule.http.match})
    named = " and ".join(field for field in fields if field)
    return _left_out(
        delegate,
        f"{path}.match",
        f"It does not narrow {root.meta.ref().object_name} {rule.path}.match ({named}), which "
        "delegates to it; the rule is left out there.",
        "Match only what the root's match lets through; regexes cannot be compared.",
        code="DelegateConflict",
    )


def _left_out(
    row: VirtualService, path: str, message: str, remedy: str, code: str = "DelegateLeftOut"
) -> Finding:
    return Finding(Severity.ERROR, code, row.meta.ref(path), message, remedy)
