"""Options about all TLS, the same for all commands that tell what proxies are served."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pilothouse.model.tls_policy import CompliancePolicy

F = TypeVar("F", bound=Callable[..., Any])


class CompliancePolicyType(click.Choice[str]):
    """A policy by istiod's name for it."""

    def __init__(self) -> None:
        """Offer all but the empty name, which stands for none."""
        super().__init__([each.value for each in CompliancePolicy if each.value])

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> CompliancePolicy:
        """Read it; the empty text is no policy."""
        text = str(value).strip()
        return CompliancePolicy(super().convert(text, param, ctx) if text else "")


def tls_policy_options(command: F) -> F:
    """Give a command the options `compliance_policy` and `skip_validate_trust_domain`."""
    compliance = click.option(
        "--compliance-policy",
        type=CompliancePolicyType(),
        default="",
        show_default=False,
        envvar=["PILOTHOUSE_COMPLIANCE_POLICY", "COMPLIANCE_POLICY"],
        help="Restrict all TLS, of proxies and the secure port, whatever the config says. It takes"
        " validated cryptographic modules too to be compliant.",
    )
    skip = click.option(
        "--skip-validate-trust-domain",
        is_flag=True,
        envvar=["PILOTHOUSE_SKIP_VALIDATE_TRUST_DOMAIN", "PILOT_SKIP_VALIDATE_TRUST_DOMAIN"],
        help="Dangerous: let workloads of any trust domain call, if a trusted root vouches for"
        " them.",
    )
    return compliance(skip(command))
