"""
The mesh's certificate authority, put together: material, signing, rotation, and who is told.

Material comes from a plugged-in authority if there is one, else from roots of our own, kept in a
directory or in memory. Whatever changes it (files, a rotation) takes one way: signing first, so
that nothing by an earlier signer is still to come, then the trust bundle as a row, then the secure
port, then new certificates for proxies that have them from here.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from prometheus_client import CollectorRegistry

from pilothouse.certs.callers import Caller
from pilothouse.certs.front.control import Material
from pilothouse.certs.gate import AT_ONCE, Gate
from pilothouse.certs.holders_journal import HoldersJournal
from pilothouse.certs.issued import DEFAULT_TTL, LONGEST_TTL, IssuedChain, KeyAlgorithm
from pilothouse.certs.issuing import IssuingPolicy
from pilothouse.certs.material import CaMaterial
from pilothouse.certs.plugged_in import (
    chain_end,
    check_change,
    first_end,
    has_plugged_in,
    read_plugged_in,
    root_fingerprints,
    stamp,
)
from pilothouse.certs.precedence import Precedence
from pilothouse.certs.private_files import make_private_directory
from pilothouse.certs.refusals import Refusal
from pilothouse.certs.root_store import BadRoot, RootStore, has_root, lock_directory
from pilothouse.certs.rotation import Phase
from pilothouse.certs.rotation_files import (
    RotationStatus,
    remove_request,
    remove_status,
    request_waits,
    write_status,
)
from pilothouse.certs.self_signed import make_root
from pilothouse.certs.server_tls import ServingCertificate
from pilothouse.certs.service import Arrived, AuthenticateContext, CertificateService
from pilothouse.certs.signing import SigningPool
from pilothouse.errors import MeshError
from pilothouse.model.inputs import THE_MESH, TRUST_BUNDLE
from pilothouse.model.trust import TrustBundle
from pilothouse.runtime.authority_log import AuthorityLog
from pilothouse.runtime.commit import Change
from pilothouse.runtime.held_certificates import HeldCertificates
from pilothouse.runtime.root_rotation import RotationRun
from pilothouse.runtime.settings import DEFAULT_SETTLE
from pilothouse.xds.streams import Streams

LOOK_AT_FILES_SECONDS: Final = 1.0
_PLUGGED_IN: Final = (
    "An authority is plugged in (--ca-certs-dir): add the new root to its bundle, then exchange the"
    " signing certificate, then remove the old root; each is used as soon as it is written."
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthoritySettings:
    """
    What the operator chose of the authority.

    `directory` keeps roots of our own, and what is known of their rotation (None: in memory).
    `plugged_in` holds the files of Istio's ``cacerts``. `algorithm` is of new roots. `settle` is
    how long proxies must be seen to have what a step of a rotation needs.
    """

    directory: Path | None = None
    plugged_in: Path | None = None
    default_ttl: timedelta = DEFAULT_TTL
    longest_ttl: timedelta = LONGEST_TTL
    algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    settle: timedelta = DEFAULT_SETTLE
    workers: int = 1


class MeshAuthority:
    """See the module docstring. `start` it, `run` it on the same event loop, `close` it."""

    def __init__(
        self,
        settings: AuthoritySettings,
        *,
        streams: Streams,
        put: Callable[[Iterable[Change]], Awaitable[None]],
        registry: CollectorRegistry,
        clock: Callable[[], datetime],
        names: Collection[str],
        trust_domains: Callable[[], Collection[str]],
        precedence: Precedence | None = None,
    ) -> None:
        """
        `put` commits rows and returns once they are published; `names` are the server's own.

        `trust_domains` gives the mesh's trust domain and its aliases, asked anew each time.
        Nothing is signed while `precedence` is closed.

        Raises: InvalidConfig: The lifetimes contradict each other.
        """
        self._settings = settings
        self._streams = streams
        self._put = put
        self._clock = clock
        self._names = tuple(names)
        self._trust_domains = trust_domains
        self._precedence = precedence or Precedence()
        self._policy = IssuingPolicy(
            default_ttl=settings.default_ttl, longest_ttl=settings.longest_ttl
        )
        self._log = AuthorityLog(registry, time.monotonic, clock)
        self._store: RootStore | None = None
        self._journal: HoldersJournal | None = None
        self._held: HeldCertificates
        self._rotation: RotationRun | None = None
        self._material: CaMaterial
        self._issued_by = b""
        self._stamp: object = None
        self._lock: int | None = None
        self.issuer: SigningPool
        self.serving: ServingCertificate
        self.on_change: Callable[[], Awaitable[None]] = _nothing
        """Awaited when the server's certificate or the trusted roots have changed."""
        self.reissue: Callable[[], Awaitable[None]] = _nothing
        """Awaited when another root signs, to issue anew what was issued here."""

    # -- start and end ----------------------------------------------------------------------------

    async def start(self, trust_domain: Callable[[], Awaitable[str]]) -> None:
        """
        Open the material, or make a root, and start to sign.

        `trust_domain` is asked only if there has to be a root, which is called after it (C-R-1).

        Raises: BadRoot, BadMaterial, SigningFailed: There is no usable authority.
        """
        is_new = self._needs_root()
        self._material = self._open(await trust_domain() if is_new else "")
        self._issued_by = self._material.certificate_pem
        self._journal = _open_journal(self._settings.directory)
        self._held = HeldCertificates(
            self._journal, self._streams, self._clock, assumed_life=self._settings.default_ttl
        )
        self._held.know(self._material.roots_pem)
        self.issuer = SigningPool(
            self._material,
            self._policy,
            clock=self._clock,
            workers=self._settings.workers,
            on_issued=self._held.issued,
            precedence=self._precedence,
        )
        await self.issuer.start()
        self.serving = ServingCertificate(self.issuer, self._names, self._clock)
        if self._store is not None:
            self._rotation = RotationRun(
                self._store,
                self._held,
                apply=self._apply_rotation,
                clock=self._clock,
                monotonic=time.monotonic,
                settle=self._settings.settle,
                trust_domain=lambda: next(iter(self._trust_domains())),
                algorithm=self._settings.algorithm,
            )
        self._tell()

    async def close(self) -> None:
        """End signing, and let go of the directory."""
        if hasattr(self, "issuer"):
            await self.issuer.close()
        if self._journal is not None:
            self._journal.close()
        if self._store is not None:
            self._store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _needs_root(self) -> bool:
        plugged_in, directory = self._settings.plugged_in, self._settings.directory
        if plugged_in is not None and has_plugged_in(plugged_in):
            return False
        return directory is None or not has_root(directory)

    def _open(self, trust_domain: str) -> CaMaterial:
        now, settings = self._clock(), self._settings
        if settings.plugged_in is not None:
            self._stamp = stamp(settings.plugged_in)
            found = read_plugged_in(settings.plugged_in, now)
            if found is not None:
                log.info("authority.plugged_in", directory=str(settings.plugged_in))
                if settings.directory is not None:
                    self._lock = _lock(settings.directory)
                    _forget_status(settings.directory)
                return found
            log.warning(
                "authority.nothing_plugged_in",
                directory=str(settings.plugged_in),
                remedy="It has no file of an authority, so a root of our own signs.",
            )
        if settings.directory is None:
            log.info(
                "certs.root_in_memory",
                remedy="Every start makes a new root; give --ca-dir to keep one.",
            )
            return make_root(trust_domain, now, settings.algorithm)
        self._store = RootStore.open(
            settings.directory, trust_domain, now, algorithm=settings.algorithm, exclusive=True
        )
        return self._store.material(now)

    # -- for others -------------------------------------------------------------------------------

    @property
    def follower(self) -> HeldCertificates:
        """Who wants to be told of proxies that come and go; once it is started."""
        return self._held

    def rows(self) -> list[Change]:
        """Return the rows that others read the trusted roots from."""
        material = self._material
        row = TrustBundle(roots_pem=material.roots_pem, crl_pem=material.crl_pem)
        return [(TRUST_BUNDLE.name, THE_MESH, row)]

    async def port_material(self) -> Material:
        """Return what the secure port serves with. Raises: Refusal."""
        pair = await self.serving.certificate()
        return Material(
            certificate_pem=(pair.certificate_pem + self._material.cross_pem).decode("ascii"),
            key_pem=pair.key_pem.decode("ascii"),
            roots_pem=self._material.roots_pem.decode("ascii"),
            crl_pem=self._material.crl_pem.decode("ascii"),
        )

    def service(
        self, authenticate: AuthenticateContext, arrived: Arrived
    ) -> "grpc.GenericRpcHandler[Any, Any]":
        """Return the certificate service for whom `authenticate` knows; addresses take turns."""
        observer = _ServiceObserver(self._log, self._held)
        gate = Gate(at_once=AT_ONCE * self._settings.workers, precedence=self._precedence)
        return CertificateService(self.issuer, authenticate, observer, gate, arrived).handler()

    # -- while running ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Watch over the authority until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._rotation is not None:
                tasks.create_task(self._rotation.run(), name="rotation")
            elif self._settings.plugged_in is not None:
                tasks.create_task(self._watch_files(self._settings.plugged_in), name="ca files")
            tasks.create_task(self._watch_trust_domains(), name="trust domains")

    async def _watch_trust_domains(self) -> None:
        while True:
            aliases = tuple(sorted(self._trust_domains()))
            if aliases != self._policy.trust_domain_aliases:
                self._policy = IssuingPolicy(
                    default_ttl=self._policy.default_ttl,
                    longest_ttl=self._policy.longest_ttl,
                    trust_domain_aliases=aliases,
                )
                await self.issuer.load(self._material, self._policy)
            await asyncio.sleep(LOOK_AT_FILES_SECONDS)

    async def _watch_files(self, directory: Path) -> None:
        seen = used = self._stamp
        while True:
            await asyncio.sleep(LOOK_AT_FILES_SECONDS)
            self._refuse_requests()
            before, seen = seen, stamp(directory)
            if seen == used or seen != before:
                continue  # nothing new, or still being written
            used = seen
            try:
                await self._use_plugged_in(directory)
            except (MeshError, OSError) as failure:
                self._log.change_refused()
                log.error(  # noqa: TRY400
                    "authority.change_refused",
                    problem=str(failure),
                    remedy="The authority goes on with what it has.",
                )

    def _refuse_requests(self) -> None:
        own = self._settings.directory
        if own is None or not request_waits(own):
            return
        status = RotationStatus(phase=Phase.STABLE, at=self._clock(), refused=_PLUGGED_IN)
        try:
            write_status(own, status)
            remove_request(own)
        except OSError as failure:
            log.error("rotation.failed", problem=str(failure))  # noqa: TRY400

    async def _use_plugged_in(self, directory: Path) -> None:
        found = read_plugged_in(directory, self._clock())
        if found is None or found == self._material:
            return
        check_change(self._material, found, directory)
        await self._apply(found)
        log.info(
            "authority.changed",
            signs=found.root[:16],
            trusted=sorted(root[:16] for root in root_fingerprints(found)),
        )

    async def _apply_rotation(self) -> None:
        if self._store is not None:
            await self._apply(self._store.material(self._clock()))

    async def _apply(self, material: CaMaterial) -> None:
        """Use other material everywhere; safe to repeat after a failure half way."""
        self._held.know(material.roots_pem)
        await self.issuer.load(material, self._policy)
        self._material = material
        await self._put(self.rows())
        self.serving.forget()
        await self.on_change()
        if material.certificate_pem != self._issued_by:
            await self.reissue()
            self._issued_by = material.certificate_pem
        self._tell()

    def _tell(self) -> None:
        self._log.ends(first_end(self._material), chain_end(self._material))
        self._log.phase(self._store.rotation.phase if self._store is not None else Phase.STABLE)


class _ServiceObserver:
    """Counts and logs, and keeps track of who holds what."""

    def __init__(self, log: AuthorityLog, held: HeldCertificates) -> None:
        self._log = log
        self._held = held
        self.requested = log.requested

    def issued(self, caller: Caller, chain: IssuedChain) -> None:
        self._log.issued(caller, chain)
        self._held.superseded(caller, chain)

    def refused(self, caller: Caller | None, refusal: Refusal) -> None:
        self._log.refused(caller, refusal)


def _lock(directory: Path) -> int:
    try:
        make_private_directory(directory)
        return lock_directory(directory)
    except OSError as failure:
        raise BadRoot(directory, f"{failure.strerror or failure}.") from failure


def _open_journal(directory: Path | None) -> HoldersJournal:
    try:
        if directory is not None:
            make_private_directory(directory)
        return HoldersJournal(directory)
    except OSError as failure:
        raise BadRoot(directory or Path(), f"{failure.strerror or failure}.") from failure


def _forget_status(directory: Path) -> None:
    # It may say that there is no authority (`OutsideAuthority`); a rotation writes its own.
    try:
        remove_status(directory)
    except OSError as failure:
        raise BadRoot(directory, f"{failure.strerror or failure}.") from failure


async def _nothing() -> None:
    return
