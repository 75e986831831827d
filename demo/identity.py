"""
What lets a workload of the demo prove who it is: a token in a file, and the mesh's roots beside it.

Does in code what ``pilothouse token create`` and ``pilothouse ca root`` do for people.
"""

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pilothouse.certs.root_store import RootStore
from pilothouse.certs.tokens import TokenStore
from pilothouse.model.identity import WorkloadIdentity
from pilothouse.translators.envoy.control_plane_tls import ControlPlaneTls

TRUST_DOMAIN: Final = "cluster.local"


@dataclass(frozen=True, slots=True)
class Issuer:
    """The authority of the demo, in a directory that the control plane is given."""

    directory: Path
    roots_pem: bytes

    @staticmethod
    def make(directory: Path) -> "Issuer":
        """Make its root, before the control plane does."""
        now = datetime.now(UTC)
        roots = RootStore.open(directory, TRUST_DOMAIN, now)
        return Issuer(directory, roots.material(now).roots_pem)

    def equip(
        self, folder: Path, namespace: str, service_account: str, uid: int | None
    ) -> ControlPlaneTls:
        """Write a workload's token and the roots to its folder, for user `uid` (None: us)."""
        identity = WorkloadIdentity(TRUST_DOMAIN, namespace, service_account)
        token, _ = TokenStore(self.directory).create(identity, datetime.now(UTC))
        folder.mkdir(parents=True, exist_ok=True)
        files = {"token": token.encode(), "roots.pem": self.roots_pem}
        for name, content in files.items():
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(content)
            if uid is not None:
                os.chown(path, uid, uid)
        return ControlPlaneTls(
            root_file=str(folder / "roots.pem"), token_file=str(folder / "token")
        )
