"""The policy that all TLS is under, for who builds TLS settings; it also says what it overrides."""

from pilothouse.api.gateway import ServerTls
from pilothouse.api.mesh_config import MeshTls
from pilothouse.graph.core import Ctx, query
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import THE_MESH, TLS_POLICY
from pilothouse.model.mesh import mesh_config
from pilothouse.model.tls_policy import CompliancePolicy, TlsPolicy, overridden


@query
def compliance(ctx: Ctx, _key: None) -> CompliancePolicy:
    """
    Return the policy of all TLS (S-PA-9).

    Reports: OutsideCompliancePolicy: A field of meshMTLS or tlsDefaults that has no effect.
    """
    policy = _tls_policy(ctx).compliance
    if policy is not CompliancePolicy.NONE:
        mesh = ctx.get(mesh_config, None)
        for path, tls in (("meshMTLS", mesh.mesh_mtls), ("tlsDefaults", mesh.tls_defaults)):
            if tls is not None:
                report_overridden(ctx, policy, tls, ConfigRef("MeshConfig", "", "mesh", path))
    return policy


def report_overridden(
    ctx: Ctx, policy: CompliancePolicy, tls: MeshTls | ServerTls, ref: ConfigRef
) -> None:
    """Report each field of the settings at `ref` that a policy is stronger than."""
    for field, instead in overridden(policy, tls):
        ctx.report(
            Finding(
                Severity.WARNING,
                "OutsideCompliancePolicy",
                ref.at(f"{ref.path}.{field}"),
                f"Under the compliance policy {policy} it is not used as it is written;"
                f" what holds is {instead}.",
                "Remove it, or write what the policy allows.",
            )
        )


@query
def skips_trust_domains(ctx: Ctx, _key: None) -> bool:
    """Tell whether callers may be of any trust domain (S-PA-8)."""
    return _tls_policy(ctx).skips_trust_domains


def _tls_policy(ctx: Ctx) -> TlsPolicy:
    return ctx.row(TLS_POLICY, THE_MESH) or TlsPolicy()
