"""
The authority's own roots on disk, with the state of their rotation.

    authority.json           which root signs, and where a rotation is; replaced in one step
    root-<id>-key.pem        one pair for each root that the state names
    root-<id>-cert.pem
    root-<id>-cross.pem      what earlier roots say of this one, if there were any

A root's files are written before the state names them and removed after it no longer does, so a
kill at any moment leaves a directory that `RootStore.open` reads. The directory is its owner's
alone. One process at a time may change it.
"""

import fcntl
import os
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from pilothouse.certs.issued import KeyAlgorithm
from pilothouse.certs.material import (
    BadMaterial,
    CaMaterial,
    fingerprint,
    join_roots,
    load_certificates,
    make_material,
    to_pem,
)
from pilothouse.certs.private_files import (
    NotPrivate,
    make_private_directory,
    sync_directory,
    write_private,
)
from pilothouse.certs.rotation import Event, Requested, RootRotation
from pilothouse.certs.self_signed import cross_sign, make_root
from pilothouse.errors import SourceError

STATE_FILE: Final = "authority.json"
LOCK_FILE: Final = "authority.lock"
OLD_KEY_FILE: Final = "root-key.pem"
OLD_CERTIFICATE_FILE: Final = "root-cert.pem"
_ID_CHARACTERS: Final = 16


class BadRoot(SourceError):
    """
    The directory of roots cannot be used; `problem` says why, `directory` which.

    `is_in_use` tells that another process has it, and nothing is wrong with it.
    """

    def __init__(self, directory: Path, problem: str, *, is_in_use: bool = False) -> None:
        """Say what is wrong with the directory."""
        super().__init__(directory, problem)
        self.directory = directory
        self.problem = problem
        self.is_in_use = is_in_use

    def __str__(self) -> str:
        """One sentence for people."""
        return f"The certificate authority in {self.directory} cannot be used: {self.problem}"


def key_file(root: str) -> str:
    """Name the file of a root's key, by the root's fingerprint."""
    return f"root-{root[:_ID_CHARACTERS]}-key.pem"


def certificate_file(root: str) -> str:
    """Name the file of a root's certificate, by the root's fingerprint."""
    return f"root-{root[:_ID_CHARACTERS]}-cert.pem"


def cross_file(root: str) -> str:
    """Name the file of certificates of a root by earlier ones, by the root's fingerprint."""
    return f"root-{root[:_ID_CHARACTERS]}-cross.pem"


def read_state(directory: Path) -> RootRotation | None:
    """Return the state kept in a directory, None if there is none. Raises: BadRoot."""
    try:
        text = (directory / STATE_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise BadRoot(directory, f"{failure.strerror or failure}.") from failure
    try:
        return msgspec.json.decode(text, type=RootRotation)
    except msgspec.DecodeError as failure:
        raise BadRoot(directory, f"{STATE_FILE} is damaged: {failure}.") from failure


def has_root(directory: Path) -> bool:
    """Tell whether there is, or was meant to be, a root in a directory; it may be damaged."""
    found = (STATE_FILE, OLD_KEY_FILE, OLD_CERTIFICATE_FILE)
    return any((directory / name).exists() for name in found) or any(
        directory.glob("root-*cert.pem")
    )


def trust_domain_of(directory: Path) -> str:
    """Return the trust domain that the root in a directory is called after, "" if unknown."""
    try:
        state = read_state(directory)
        if state is None:
            return ""
        pem = (directory / certificate_file(state.signer)).read_bytes()
        return _named_after(load_certificates(pem, certificate_file(state.signer))[0])
    except (BadRoot, BadMaterial, OSError, IndexError):
        return ""


def _named_after(root: x509.Certificate) -> str:
    names = root.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return str(names[0].value) if names else ""


class RootStore:
    """The roots of one directory. Blocking: its files are small and read once."""

    def __init__(self, directory: Path, rotation: RootRotation, lock: int | None) -> None:
        """Use `open`."""
        self.directory = directory
        self.rotation = rotation
        self._lock = lock

    @staticmethod
    def open(
        directory: Path,
        trust_domain: str,
        now: datetime,
        *,
        algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256,
        exclusive: bool = False,
    ) -> "RootStore":
        """
        Read the roots in a directory, or make one there if it has none.

        `exclusive` keeps other processes that ask for it out until `close`, or the end of this
        process.

        Raises: BadRoot: Others may read it, a file is missing or damaged, the root has ended, or
            another server uses it.
        """
        lock = None
        try:
            make_private_directory(directory)
            lock = lock_directory(directory) if exclusive else None
            rotation = (
                read_state(directory)
                or _adopt(directory, now)
                or _create(directory, make_root(trust_domain, now, algorithm), now)
            )
            store = RootStore(directory, rotation, lock)
            store.material(now)
            store._remove_unused()
        except BaseException as failure:
            _unlock(lock)
            if isinstance(failure, NotPrivate):
                raise BadRoot(directory, failure.problem) from failure
            if isinstance(failure, BadMaterial):
                raise BadRoot(directory, f"{failure}.") from failure
            if isinstance(failure, OSError):
                raise BadRoot(directory, f"{failure.strerror or failure}.") from failure
            raise
        return store

    def close(self) -> None:
        """Let other processes use the directory."""
        _unlock(self._lock)
        self._lock = None

    def material(self, now: datetime) -> CaMaterial:
        """
        Return what signs now, with the bundle of all trusted roots.

        Raises: BadRoot.
        """
        signer = self.rotation.signer
        roots = join_roots(
            root for each in self.rotation.trusted_roots for root in self._certificates(each)
        )
        try:
            made = make_material(
                self._read(key_file(signer)), self._read(certificate_file(signer)), b"", roots, now
            )
            return msgspec.structs.replace(made, cross_pem=self._cross(signer, now))
        except BadMaterial as failure:
            raise BadRoot(self.directory, f"{failure}.") from failure

    def ends(self) -> datetime:
        """Return when the root that signs ends. Raises: BadRoot."""
        return self._certificates(self.rotation.signer)[0].not_valid_after_utc

    def begins(self) -> datetime:
        """Return when the root that signs began. Raises: BadRoot."""
        return self._certificates(self.rotation.signer)[0].not_valid_before_utc

    def trust_domain(self) -> str:
        """Return the trust domain that the root that signs is called after. Raises: BadRoot."""
        return _named_after(self._certificates(self.rotation.signer)[0])

    def request(
        self, trust_domain: str, now: datetime, algorithm: KeyAlgorithm = KeyAlgorithm.ECDSA_P256
    ) -> None:
        """Make a new root and begin to rotate to it. Raises: RotationRefused, OSError."""
        new = make_root(trust_domain, now, algorithm)
        state = self.rotation.advance(Requested(new.root), now)
        old = self.material(now)
        cross = cross_sign(new, old, now) + old.cross_pem
        _write_root(self.directory, new)
        write_private(self.directory / cross_file(new.root), cross)
        self._save(state)

    def advance(self, event: Event, now: datetime) -> bool:
        """Feed the rotation; return whether it moved. Raises: RotationRefused, OSError."""
        state = self.rotation.advance(event, now)
        if state == self.rotation:
            return False
        self._save(state)
        self._remove_unused()
        return True

    # -- files ------------------------------------------------------------------------------------

    def _save(self, state: RootRotation) -> None:
        _write_state(self.directory, state)
        self.rotation = state

    def _remove_unused(self) -> None:
        needed = {
            name(root)
            for root in self.rotation.kept_roots
            for name in (key_file, certificate_file, cross_file)
        }
        for pattern in ("root-*.pem", f".{STATE_FILE}.*", ".root-*.pem.*"):
            for path in self.directory.glob(pattern):
                if path.name not in needed:
                    path.unlink(missing_ok=True)
        sync_directory(self.directory)

    def _read(self, name: str) -> bytes:
        try:
            return (self.directory / name).read_bytes()
        except OSError as failure:
            raise BadRoot(self.directory, f"{name}: {failure.strerror or failure}.") from failure

    def _cross(self, root: str, now: datetime) -> bytes:
        """Return the certificates of a root by earlier ones that have not ended."""
        if not (self.directory / cross_file(root)).exists():
            return b""
        found = load_certificates(self._read(cross_file(root)), cross_file(root))
        return b"".join(to_pem(each) for each in found if each.not_valid_after_utc > now)

    def _certificates(self, root: str) -> list[x509.Certificate]:
        name = certificate_file(root)
        try:
            found = load_certificates(self._read(name), name)
        except BadMaterial as failure:
            raise BadRoot(self.directory, f"{failure}.") from failure
        if len(found) != 1 or fingerprint(found[0]) != root:
            raise BadRoot(self.directory, f"{name} is not the root that {STATE_FILE} names.")
        return found


def _create(directory: Path, made: CaMaterial, now: datetime) -> RootRotation:
    state = RootRotation(current=made.root, since=now)
    _write_root(directory, made)
    _write_state(directory, state)
    return state


def _write_root(directory: Path, made: CaMaterial) -> None:
    write_private(directory / key_file(made.root), made.key_pem)
    write_private(directory / certificate_file(made.root), made.certificate_pem)


def _write_state(directory: Path, state: RootRotation) -> None:
    text = msgspec.json.format(msgspec.json.encode(state))
    write_private(directory / STATE_FILE, text + b"\n")


def _adopt(directory: Path, now: datetime) -> RootRotation | None:
    """
    Take over a root without a state: of the time before rotation, or whose making was cut short.

    Keys are written before certificates, so a key without one has signed nothing.

    Raises: BadRoot: There are several, and nothing says which is in charge.
    """
    certificates = sorted(directory.glob("root-*cert.pem"))
    if not certificates:
        if (directory / OLD_KEY_FILE).exists():
            raise BadRoot(directory, f"{OLD_CERTIFICATE_FILE}: No such file or directory.")
        return None
    if len(certificates) > 1:
        raise BadRoot(
            directory,
            f"{STATE_FILE} is missing, and there are several roots; restore it, or move away all"
            " but the one that proxies trust.",
        )
    certificate = certificates[0]
    key = certificate.with_name(certificate.name.replace("cert.pem", "key.pem"))
    made = make_material(
        key.read_bytes(), certificate.read_bytes(), b"", certificate.read_bytes(), now
    )
    return _create(directory, made, now)


def lock_directory(directory: Path) -> int:
    """Keep other servers out until the descriptor is closed. Raises: BadRoot, OSError."""
    handle = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as failure:
        os.close(handle)
        raise BadRoot(directory, "another server uses it.", is_in_use=True) from failure
    return handle


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)
