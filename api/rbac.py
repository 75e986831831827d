"""
Kubernetes' access rules, as far as they say which service account may read which Secret.

Types only; `pilothouse.model.secret_access` draws the conclusion.
"""

from pilothouse.api.meta import ObjectMeta
from pilothouse.api.structs import KubernetesStruct


class PolicyRule(KubernetesStruct, frozen=True):
    """What may be done to what; `*` stands for all. Without resource names, to all objects."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()


class Role(KubernetesStruct, frozen=True):
    """A Role: what may be done within its namespace."""

    meta: ObjectMeta
    rules: tuple[PolicyRule, ...] | None = ()


class ClusterRole(KubernetesStruct, frozen=True):
    """A ClusterRole: what may be done wherever it is bound."""

    meta: ObjectMeta
    rules: tuple[PolicyRule, ...] | None = ()


class Subject(KubernetesStruct, frozen=True):
    """Who is bound: a ServiceAccount, User or Group."""

    kind: str
    name: str
    namespace: str = ""


class RoleRef(KubernetesStruct, frozen=True):
    """The Role or ClusterRole that a binding gives."""

    kind: str
    name: str


class RoleBinding(KubernetesStruct, frozen=True):
    """A RoleBinding: gives a role within its namespace."""

    meta: ObjectMeta
    role_ref: RoleRef
    subjects: tuple[Subject, ...] | None = ()


class ClusterRoleBinding(KubernetesStruct, frozen=True):
    """A ClusterRoleBinding: gives a ClusterRole everywhere."""

    meta: ObjectMeta
    role_ref: RoleRef
    subjects: tuple[Subject, ...] | None = ()
