"""
The signing process: holds the authority's key, answers requests one by one, ends with its server.

Started by `pilothouse.certs.signing` with the number of a connected socket as only argument. It
reads no files, opens no connections and writes nothing elsewhere; when the socket closes, because
the server closed it or is gone, it ends. It leaves Ctrl-C and SIGTERM to the server, which still
answers while it drains.
"""

import os
import resource
import signal
import socket
import sys
from typing import Final

import msgspec

from pilothouse.certs.issuing import (
    IssuingPolicy,
    Signer,
    issue_server,
    issue_workload,
    sign_csr,
)
from pilothouse.certs.material import BadMaterial
from pilothouse.certs.refusals import Refusal, SignerEnded, SigningFailed
from pilothouse.certs.signing_messages import (
    LENGTH,
    MAX_FRAME_BYTES,
    Answer,
    IssueServer,
    IssueWorkload,
    Load,
    Loaded,
    Made,
    Refused,
    Request,
    Signed,
    SignRequest,
    frame,
    read_request,
)
from pilothouse.model.identity import WorkloadIdentity

_NICENESS: Final = 10
"""A storm of requests leaves the processor to who pushes config."""


def serve(connection: socket.socket) -> None:
    """Answer requests until the other side is gone."""
    desk = Desk()
    with connection, connection.makefile("rb") as incoming:
        while len(head := incoming.read(LENGTH.size)) == LENGTH.size:
            (length,) = LENGTH.unpack(head)
            if length > MAX_FRAME_BYTES or len(body := incoming.read(length)) < length:
                return
            connection.sendall(frame(desk.answer(read_request(body))))


class Desk:
    """What is loaded, and the answers it gives."""

    def __init__(self) -> None:
        """Begin with nothing loaded."""
        self._signer: Signer | None = None
        self._policy = IssuingPolicy()

    def answer(self, request: Request) -> Answer:
        """Answer one request; every failure is a `Refused`."""
        try:
            return self._answer(request)
        except Refusal as refusal:
            return Refused.of(request.number, refusal)
        except BadMaterial as failure:
            return Refused.of(request.number, SigningFailed(str(failure)))
        except Exception:  # noqa: BLE001 (one strange request must not end all others)
            return Refused.of(request.number, SigningFailed("the certificate could not be made"))

    def _answer(self, request: Request) -> Answer:
        if isinstance(request, Load):
            self._signer, self._policy = Signer.load(request.material), request.policy
            return Loaded(request.number)
        if self._signer is None:
            raise SignerEnded("the authority is not loaded yet")
        match request:
            case SignRequest(number, csr_pem, identity, ttl, now):
                who = WorkloadIdentity.parse(identity)
                return Signed(number, sign_csr(self._signer, self._policy, csr_pem, who, ttl, now))
            case IssueWorkload(number, identity, ttl, algorithm, now):
                who = WorkloadIdentity.parse(identity)
                return Made(
                    number, issue_workload(self._signer, self._policy, who, ttl, algorithm, now)
                )
            case IssueServer(number, names, ttl, now):
                return Made(number, issue_server(self._signer, self._policy, names, ttl, now))


def main() -> None:
    """Serve the socket named on the command line."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A dump of this process would hold the key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    try:
        serve(socket.socket(fileno=int(sys.argv[1])))
    except (OSError, msgspec.DecodeError):
        sys.exit(1)


if __name__ == "__main__":
    main()
