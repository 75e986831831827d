"""
PeerAuthentication: whether a workload's callers must, may or must not use mutual TLS.

The mesh says, a namespace may say otherwise, and so may a selector for single workloads and their
ports (security.md S-PA-1 to S-PA-3). Read by a workload's own listeners and by its clients; while
modes change, the two see different things for a moment (`mode_change`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, NamedTuple

from pilothouse.api.peer_authentication import MutualTls, PeerAuthentication
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import (
    FORMER_PEER_AUTHENTICATIONS,
    MODE_CHANGE,
    PEER_AUTHENTICATIONS,
    THE_MESH,
)
from pilothouse.model.mesh import mesh_config
from pilothouse.model.mode_change import Step
from pilothouse.model.visibility import is_discovered

UNSET: Final = "UNSET"
TLS_MODE_LABEL: Final = "security.istio.io/tlsMode"
"""Label of a workload whose proxy has certificates of the mesh, with the value ``istio``."""


class MtlsMode(StrEnum):
    """What a port takes: plain text only, both, or mutual TLS only."""

    __hash__ = str.__hash__  # part of many memo keys; Enum's own is slow

    DISABLE = "DISABLE"
    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"


class PortMode(NamedTuple):
    """The mode of one of a workload's own ports."""

    port: int
    mode: MtlsMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """
    What holds for a workload: a mode, and other modes for some of its own ports.

    `sources` are the policies that say so.
    """

    mode: MtlsMode = MtlsMode.PERMISSIVE
    ports: tuple[PortMode, ...] = ()
    sources: tuple[ConfigRef, ...] = ()

    def at(self, port: int) -> MtlsMode:
        """Return the mode of a port of the workload (not of a service)."""
        return next((each.mode for each in self.ports if each.port == port), self.mode)


def _while_changing(former: Authentication, now: Authentication) -> Authentication:
    """
    Return what servers take while clients change over from `former` to `now`.

    Both, where one of the two is plain text only; else there is nothing to wait for: clients that
    have certificates use mutual TLS with PERMISSIVE as with STRICT.
    """

    def both(before: MtlsMode, after: MtlsMode) -> MtlsMode:
        is_turn = (before is MtlsMode.DISABLE) != (after is MtlsMode.DISABLE)
        return MtlsMode.PERMISSIVE if is_turn else after

    numbers = dict.fromkeys(each.port for each in (*former.ports, *now.ports))
    return Authentication(
        mode=both(former.mode, now.mode),
        ports=tuple(PortMode(n, both(former.at(n), now.at(n))) for n in sorted(numbers)),
        sources=now.sources,
    )


class SelectingPolicy(NamedTuple):
    """A policy for the workloads that carry its labels; `mode` is None where it inherits."""

    labels: frozenset[tuple[str, str]]
    mode: MtlsMode | None
    ports: tuple[tuple[int, MtlsMode | None], ...]
    ref: ConfigRef

    def over(self, inherited: Authentication) -> Authentication:
        """Return what holds for its workloads, given what holds without it."""
        mode = self.mode or inherited.mode
        ports = tuple(PortMode(port, own or mode) for port, own in self.ports)
        sources = (self.ref,) if self.mode else (self.ref, *inherited.sources)
        return Authentication(mode=mode, ports=ports, sources=sources)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceAuthentication:
    """
    What holds in a namespace, and its policies with a selector, the oldest first.

    While that changes, `former` is what held before, and `step` says whom the change has reached.
    """

    everywhere: Authentication = Authentication()
    selecting: tuple[SelectingPolicy, ...] = ()
    former: "NamespaceAuthentication | None" = None
    step: Step | None = None

    def selected(self, labels: Mapping[str, str]) -> tuple[SelectingPolicy, ...]:
        """Return the policies that select a workload with these labels; the first one counts."""
        pairs = labels.items()
        return tuple(each for each in self.selecting if pairs >= each.labels)

    def of(self, labels: Mapping[str, str]) -> Authentication:
        """Return what holds for a workload with these labels."""
        now = self._after(labels)
        return now if self.former is None else _while_changing(self.former.of(labels), now)

    def for_clients(self, labels: Mapping[str, str]) -> Authentication:
        """Return what its clients go by."""
        if self.former is not None and self.step is Step.SERVERS:
            return self.former.of(labels)
        return self._after(labels)

    def _after(self, labels: Mapping[str, str]) -> Authentication:
        pairs = labels.items()
        for each in self.selecting:
            if pairs >= each.labels:
                return each.over(self.everywhere)
        return self.everywhere


class Scope(NamedTuple):
    """A namespace, now or as it was before the change under way."""

    namespace: str
    is_former: bool


@query
def mesh_authentication(ctx: Ctx, is_former: bool) -> Authentication:  # noqa: FBT001 (a key)
    """Return what holds where a namespace says nothing: PERMISSIVE, or the root's word (S-PA-3)."""
    scope = Scope(ctx.get(mesh_config, None).root_namespace, is_former)
    rows = _policies(ctx, scope)
    for row in rows:
        if row.spec.labels and not is_former:
            ctx.report(_selector_in_root(row))
    return _of_scope(ctx, rows, Authentication(), "" if is_former else "the mesh")


@query
def scope_authentication(ctx: Ctx, scope: Scope) -> NamespaceAuthentication:
    """Return what holds in a namespace at one time (S-PA-1)."""
    mesh = ctx.get(mesh_authentication, scope.is_former)
    if scope.namespace == ctx.get(mesh_config, None).root_namespace:
        return NamespaceAuthentication(everywhere=mesh)
    rows = _policies(ctx, scope)
    if not rows:
        return NamespaceAuthentication(everywhere=mesh)
    place = "" if scope.is_former else f"namespace {scope.namespace}"
    return NamespaceAuthentication(
        everywhere=_of_scope(ctx, rows, mesh, place),
        selecting=tuple(_selecting(row) for row in rows if row.spec.labels),
    )


@query
def namespace_authentication(ctx: Ctx, namespace: str) -> NamespaceAuthentication:
    """Return what holds in a namespace, and what held before a change under way."""
    now = ctx.get(scope_authentication, Scope(namespace, is_former=False))
    change = ctx.row(MODE_CHANGE, THE_MESH)
    if change is None:
        return now
    former = ctx.get(scope_authentication, Scope(namespace, is_former=True))
    return now if former == now else replace(now, former=former, step=change.step)


class WorkloadQuestion(NamedTuple):
    """A workload by namespace and labels."""

    namespace: str
    labels: tuple[tuple[str, str], ...]


@query
def workload_authentication(ctx: Ctx, asked: WorkloadQuestion) -> Authentication:
    """Return what holds for a workload; say so if policies compete for it."""
    known = ctx.get(namespace_authentication, asked.namespace)
    labels = dict(asked.labels)
    for later in known.selected(labels)[1:]:
        ctx.report(_ignored(later.ref, known.selected(labels)[0].ref, "some of its workloads"))
    return known.of(labels)


def authentication_of(
    ctx: Ctx, namespace: str, labels: tuple[tuple[str, str], ...]
) -> Authentication:
    """Return what holds for a workload, without a node for each where no policy selects any."""
    known = ctx.get(namespace_authentication, namespace)
    if not known.selecting and known.former is None:
        return known.everywhere
    return ctx.get(workload_authentication, WorkloadQuestion(namespace, labels))


def takes_mutual_tls(
    ctx: Ctx, namespace: str, labels: Mapping[str, str], port: int, *, has_identity: bool = False
) -> bool:
    """
    Tell whether clients should use mutual TLS towards a workload's port (S-PA-11).

    `has_identity` stands in for the label where the workload's entry names its service account and
    carries no label (WE-05).
    """
    label = labels.get(TLS_MODE_LABEL)
    if label != "istio" and (label is not None or not has_identity):
        return False
    known = ctx.get(namespace_authentication, namespace)
    return known.for_clients(labels).at(port) is not MtlsMode.DISABLE


def _policies(ctx: Ctx, scope: Scope) -> list[PeerAuthentication]:
    rows = ctx.where(PEER_AUTHENTICATIONS, "namespace", scope.namespace)
    if scope.is_former:
        by_key = {row.meta.key: row for row in rows}
        for key in ctx.keys(FORMER_PEER_AUTHENTICATIONS):
            if key.namespace == scope.namespace:
                by_key.pop(key, None)
                former = ctx.row(FORMER_PEER_AUTHENTICATIONS, key)
                if former is not None and former.policy is not None:
                    by_key[key] = former.policy
        rows = tuple(by_key.values())
    if not rows or not is_discovered(ctx, scope.namespace):
        return []
    return sorted(rows, key=lambda row: row.meta.age_order)


def _of_scope(
    ctx: Ctx, rows: list[PeerAuthentication], inherited: Authentication, scope: str
) -> Authentication:
    whole = [row for row in rows if not row.spec.labels]
    for later in whole[1:] if scope else ():
        ctx.report(_ignored(later.meta.ref(), whole[0].meta.ref(), scope))
    mode = _mode(whole[0].spec.mtls) if whole else None
    if mode is None:
        return inherited
    return Authentication(mode=mode, sources=(whole[0].meta.ref("spec.mtls.mode"),))


def _selecting(row: PeerAuthentication) -> SelectingPolicy:
    spec = row.spec
    return SelectingPolicy(
        labels=frozenset(spec.labels.items()),
        mode=_mode(spec.mtls),
        ports=tuple(sorted((int(port), _mode(tls)) for port, tls in spec.port_level_mtls.items())),
        ref=row.meta.ref(),
    )


def _mode(tls: MutualTls | None) -> MtlsMode | None:
    return None if tls is None or tls.mode == UNSET else MtlsMode(tls.mode)


def _ignored(later: ConfigRef, oldest: ConfigRef, scope: str) -> Finding:
    return Finding(
        Severity.WARNING,
        "AuthenticationIgnored",
        later,
        f"PeerAuthentication {oldest.object_name} is older and decides for {scope}; this one does "
        "not.",
        "Join the two into one, or give them selectors that do not overlap.",
    )


def _selector_in_root(row: PeerAuthentication) -> Finding:
    return Finding(
        Severity.WARNING,
        "SelectorInRootNamespace",
        row.meta.ref("spec.selector"),
        "A PeerAuthentication of the root namespace with a selector has no effect on any workload.",
        "Remove the selector to mean the whole mesh, or move the object to the workload's "
        "namespace.",
    )
