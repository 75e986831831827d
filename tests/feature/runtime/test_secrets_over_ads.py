"""The first answer to a proxy without an agent has its certificate; nobody else ever has it."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from fake_proxy import ADS, node
from workplace import Workplace, workplace

from pilothouse._pb.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from pilothouse._pb.envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from pilothouse.model.resource import SDS

NODE_ID = "sidecar~10.0.0.9~web-1.default~default.svc.cluster.local"


async def first_answer(place: Workplace, source: str, *, secure: bool = True) -> dict[str, Secret]:
    """Ask for the certificate and the roots as `web`; return what the first answers bring."""
    metadata = {
        "NAMESPACE": "default",
        "SERVICE_ACCOUNT": "web",
        "PILOTHOUSE_CERTIFICATES": source,
    }
    request = DeltaDiscoveryRequest(
        type_url=SDS,
        node=node(NODE_ID, metadata),
        resource_names_subscribe=["default", "ROOTCA"],
        # As an Envoy does that was cut off: what it has must not be taken for gone.
        initial_resource_versions={"default": "old"},
    )
    if secure:
        credentials = grpc.ssl_channel_credentials(place.root_file.read_bytes())
        channel: Any = grpc.aio.secure_channel(place.target, credentials)
    else:
        channel = grpc.aio.insecure_channel(str(place.server.ports.grpc))
    token = place.token_file("web").read_text().strip()
    async with channel:
        call = channel.stream_stream(ADS + "DeltaAggregatedResources")(
            timeout=10, metadata=(("authorization", f"Bearer {token}"),)
        )
        await call.write(request.SerializeToString())
        answer = DeltaDiscoveryResponse.FromString(await call.read())
        call.cancel()
    secrets = [Secret.FromString(each.resource.value) for each in answer.resources]
    return {each.name: each for each in secrets}


@pytest.mark.parametrize(
    ("source", "secure", "expected"),
    [
        ("ads", True, {"default", "ROOTCA"}),
        ("agent", True, {"ROOTCA"}),
        ("none", True, {"ROOTCA"}),
        ("ads", False, set()),
    ],
)
async def test_who_gets_what(tmp_path: Path, source: str, secure: bool, expected: set[str]) -> None:
    """D-A-7, D-Z-1: a token on the plaintext port proves nothing."""
    async with workplace(tmp_path) as place:
        await place.write_token("web")
        assert (await first_answer(place, source, secure=secure)).keys() == expected
