"""Which DestinationRule a client obeys: DR-05 to DR-07, against a direct telling of the rules."""

from dataclasses import dataclass

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.graph.core import Graph
from pilothouse.model.inputs import TABLES
from pilothouse.model.policies import RuleQuestion, merged_rule, rule_for
from pilothouse.providers.directory_state import DirectoryState

ROOT = "istio-system"
HOST = "web.shop.svc.cluster.local"
NAMESPACES = ("shop", "near", ROOT)
EXPORTS = ((), ("*",), (".",), ("near",), ("near", "."), (".", ROOT), ("~",))


@dataclass(frozen=True)
class Rule:
    """A DestinationRule for the host; `age` decides which is older."""

    age: int
    namespace: str
    exports: tuple[str, ...]
    wanted: str = ""

    @property
    def name(self) -> str:
        return f"r{self.age}"

    @property
    def is_accepted(self) -> bool:
        """Whether it says for whom it is, once, and not for others if it selects its clients."""
        shown = [self.namespace if each == "." else each for each in self.exports]
        if "~" in shown or len(set(shown)) < len(shown):
            return False
        return not self.wanted or set(shown) <= {self.namespace}

    def manifest(self) -> dict[str, object]:
        spec: dict[str, object] = {"host": HOST, "exportTo": list(self.exports)}
        if self.wanted:
            spec["workloadSelector"] = {"matchLabels": {"app": self.wanted}}
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "creationTimestamp": f"2026-01-01T00:00:0{self.age}Z",
            },
            "spec": spec,
        }


def chosen(rules: list[Rule], client: str, app: str) -> list[str] | None:
    """Return the names of the rules a client of a namespace obeys, the oldest first."""
    own = [r for r in rules if r.namespace == client and is_own(r)]
    if client == ROOT:
        own = [r for r in own if is_private(r)]
    for group in merged([r for r in own if r.wanted]):
        if group[0].wanted == app:
            return [r.name for r in group]
    groups = merged([r for r in own if not r.wanted])
    if groups:
        return [r.name for r in groups[-1]]
    for namespace in ("shop", ROOT):
        shown = [
            r for r in rules if r.namespace == namespace and not r.wanted and not is_private(r)
        ]
        groups = [g for g in merged(shown) if sees(g[0], client)]
        if groups:
            return [r.name for r in groups[-1]]
    return None


def merged(rules: list[Rule]) -> list[list[Rule]]:
    groups: list[list[Rule]] = []
    for rule in sorted(rules, key=lambda r: r.age):
        into = [
            group
            for group in groups
            if group[0].wanted == rule.wanted
            and (
                rule.wanted
                or set(rule.exports) == set(group[0].exports)
                or (group[0].exports and set(rule.exports) >= set(group[0].exports))
            )
        ]
        for group in into:
            group.append(rule)
        if not into:
            groups.append([rule])
    return groups


def is_own(rule: Rule) -> bool:
    shown = {"*", ".", rule.namespace}
    return bool(rule.wanted or not rule.exports or shown & set(rule.exports))


def is_private(rule: Rule) -> bool:
    alone = {".", rule.namespace}
    return bool(rule.wanted) or (bool(rule.exports) and set(rule.exports) <= alone)


def sees(rule: Rule, client: str) -> bool:
    if not rule.exports or "*" in rule.exports or client in rule.exports:
        return True
    return "." in rule.exports and client == rule.namespace


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    count = draw(st.integers(0, 5))
    return [
        Rule(
            age=age,
            namespace=draw(st.sampled_from(NAMESPACES)),
            exports=draw(st.sampled_from(EXPORTS)),
            wanted=draw(st.sampled_from(("", "", "", "a", "b"))),
        )
        for age in range(count)
    ]


@settings(max_examples=400, deadline=None)
@given(rules())
def test_clients_obey_what_the_rules_of_merging_say(drawn: list[Rule]) -> None:
    """
    DR-05, DR-06, DR-07: in every namespace and for every label.

    Unlike upstream, a rule that selects other clients hides no rule of another namespace.
    """
    graph = Graph()
    text = yaml.safe_dump_all([rule.manifest() for rule in drawn])
    changes = DirectoryState().update("rules.yaml", text)
    graph.commit((TABLES[each.kind], each.key, each.row) for each in changes)
    accepted = [rule for rule in drawn if rule.is_accepted]
    for client in NAMESPACES:
        for app in ("", "a"):
            labels = (("app", app),) if app else ()
            key = graph.value(rule_for, RuleQuestion(client, labels, HOST, "shop"))
            rule = graph.value(merged_rule, key) if key else None
            found = [source.ref.name for source in rule.sources] if rule else None
            assert found == chosen(accepted, client, app), (client, app)
