"""Joined responses equal messages that protobuf builds whole."""

from hypothesis import given
from hypothesis import strategies as st

from pilothouse._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from pilothouse.model.resource import CDS, EDS, Resource
from pilothouse.xds.requests import DeltaRequest, SotwRequest, Variant
from pilothouse.xds.session import Outgoing
from pilothouse.xds.wire import Framer, parse, version_of

text = st.text(max_size=40)
types = st.sampled_from([CDS, EDS, "type.googleapis.com/x.Y"])
contents = st.binary(max_size=400)
resources = st.lists(
    st.builds(Resource, types, text, contents | st.lists(contents, max_size=4).map(tuple)),
    max_size=5,
).map(tuple)
messages = st.builds(Outgoing, types, text, resources, st.lists(text, max_size=3).map(tuple))


@given(st.lists(messages, min_size=1, max_size=4))
def test_joined_is_built(sent):
    """Whatever was framed before, each message is the one protobuf would have made."""
    framer = Framer()
    for message in [*sent, *sent]:
        whole = pb.DeltaDiscoveryResponse(
            system_version_info=version_of(message),
            type_url=message.type_url,
            nonce=message.nonce,
            removed_resources=message.removed,
        )
        full = pb.DiscoveryResponse(
            version_info=version_of(message), type_url=message.type_url, nonce=message.nonce
        )
        for made in message.resources:
            item = whole.resources.add(name=made.name, version=made.version)
            for packed in (item.resource, full.resources.add()):
                packed.type_url, packed.value = made.type_url, made.data
        delta = pb.DeltaDiscoveryResponse.FromString(framer.frame(Variant.DELTA, message))
        assert delta == whole
        sotw = pb.DiscoveryResponse.FromString(framer.frame(Variant.SOTW, message))
        assert sotw == full


@given(resources, resources)
def test_versions_tell_contents_apart(one, other):
    """XD-07: a version is a hash of the content."""
    first, second = (version_of(Outgoing(CDS, "1", made)) for made in (one, other))
    assert (first == second) == ([r.version for r in one] == [r.version for r in other])


@given(types, st.lists(text, max_size=3).map(tuple), text, st.none() | text)
def test_requests_are_read(type_url, names, nonce, error):
    sotw = pb.DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce)
    delta = pb.DeltaDiscoveryRequest(
        type_url=type_url,
        resource_names_subscribe=names,
        resource_names_unsubscribe=names[:1],
        response_nonce=nonce,
        initial_resource_versions=dict.fromkeys(names, "1"),
    )
    for message in (sotw, delta):
        message.node.id = "n"
        if error is not None:
            message.error_detail.message = error
    request, node = parse(Variant.SOTW, sotw.SerializeToString())
    assert request == SotwRequest(type_url=type_url, names=names, nonce=nonce, error=error)
    assert node.id == "n"
    request, node = parse(Variant.DELTA, delta.SerializeToString())
    assert request == DeltaRequest(
        type_url=type_url,
        subscribe=names,
        unsubscribe=names[:1],
        nonce=nonce,
        error=error,
        initial_versions=dict.fromkeys(names, "1"),
    )
    assert node.id == "n"
