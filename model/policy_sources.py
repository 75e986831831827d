"""Where the settings of a merged policy are written, for findings that name object and field."""

from pilothouse.api.destination_rule import TrafficPolicy
from pilothouse.model.policies import MergedRule
from pilothouse.model.provenance import Source


def tls_source(rule: MergedRule, port: int, subset: str) -> Source | None:
    """Return the object and field whose TLS settings a cluster obeys, None if nothing sets any."""
    chosen = next((each for each in rule.subsets if each.name == subset), None) if subset else None
    for policy, source in (
        (chosen.traffic_policy if chosen else None, dict(rule.subset_sources).get(subset)),
        (rule.policy, rule.policy_source),
    ):
        field = _tls_field(policy, port) if policy else ""
        if field and source is not None:
            return source.at(f"{source.ref.path}.{field}")
    return None


def _tls_field(policy: TrafficPolicy, port: int) -> str:
    for index, entry in enumerate(policy.port_level_settings):
        if entry.port and entry.port.number == port:
            return f"portLevelSettings[{index}].tls" if entry.tls else ""
    return "tls" if policy.tls else ""
