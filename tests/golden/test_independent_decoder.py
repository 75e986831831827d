"""
Every golden resource means the same to a decoder that is not ours.

envoy-data-plane has its own schema source and its own wire code, so that an encoder that agrees
only with its own decoder is found out.
"""

import pytest
import story
from independent_decoder import ours, theirs

from pilothouse.model.resource import Resource


@pytest.mark.parametrize("name", story.names())
def test_the_bytes_mean_the_same_to_another_decoder(name: str) -> None:
    told = story.load(name)
    different: dict[Resource, None] = {}
    for proxy in told.proxies:
        for resources in told.served(proxy).values():
            different.update((each, None) for each in resources)
    assert different
    for resource in different:
        own = ours(resource.type_url, resource.data)
        assert own == theirs(resource.type_url, resource.data), resource


def test_the_comparison_notices_a_difference() -> None:
    """A field more, on the wire, is seen by both decoders."""
    resource = next(iter(story.load("plain_http").served("client")["rds"]))
    more = resource.data + b"\x0a\x05other"  # RouteConfiguration.name again: the last one counts
    assert ours(resource.type_url, more)["name"] == "other"
    assert theirs(resource.type_url, more) != theirs(resource.type_url, resource.data)
