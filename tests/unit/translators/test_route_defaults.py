"""Routes that no VirtualService shapes."""

import pytest
from route_building import TO_A, content, context, from_data, virtual_service

from pilothouse.api.destination_rule import ConsistentHash
from pilothouse.api.virtual_service import HttpRetry
from pilothouse.model.delegation import written_rules
from pilothouse.translators.envoy.routes import RouteTarget, default_route, inbound_route

HOST = "reviews.default.svc.cluster.local"
TARGET = RouteTarget(cluster=f"outbound|9080||{HOST}")


def outbound(target=TARGET, **changes):
    return content(default_route(target, host=HOST, port=9080, **changes))


def test_outbound():
    """N-51, N-52, VS-29, VS-31: everything to the service, with the built-in retries."""
    (rule,) = written_rules(virtual_service(TO_A))
    route = outbound(metadata=context().metadata(rule))
    policy = route["route"].pop("retry_policy")
    assert route == {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {
            "cluster": f"outbound|9080||{HOST}",
            "timeout": "0s",
            "max_grpc_timeout": "0s",
        },
        "decorator": {"operation": f"{HOST}:9080/*"},
        "metadata": {"filter_metadata": {"pilothouse": {"field": "spec.http[0]"}}},
    }
    assert (policy["num_retries"], len(policy["retry_host_predicate"])) == (2, 1)


def test_outbound_with_the_mesh_default():
    """VS-30"""
    route = outbound(default_retry=HttpRetry(attempts=9))
    assert route["route"]["retry_policy"]["num_retries"] == 9
    assert "retry_policy" not in outbound(default_retry=HttpRetry(attempts=0))["route"]


def test_outbound_with_affinity():
    """DR-13, VS-31: the service's DestinationRule counts without a VirtualService too."""
    hashing = from_data({"httpHeaderName": "x-user"}, ConsistentHash)
    action = outbound(RouteTarget(cluster="outbound|9080||b", hash_policy=hashing))["route"]
    assert action["hash_policy"] == [{"header": {"header_name": "x-user"}}]
    assert "retry_host_predicate" not in action["retry_policy"]


def test_one_route_does_not_change_the_next():
    """Routes are copied from shared templates."""
    first = default_route(TARGET, host=HOST, port=9080)
    first.route.retry_policy.num_retries.value = 99
    first.route.hash_policy.add().header.header_name = "x"
    assert outbound()["route"]["retry_policy"]["num_retries"] == 2
    assert "hash_policy" not in outbound()["route"]


@pytest.mark.parametrize("is_grpc", [False, True])
def test_inbound(is_grpc):
    """N-44, LS-15: no time limit; only what is not gRPC is retried, before it was sent."""
    route = content(inbound_route("inbound|9080||", host=HOST, port=9080, is_grpc=is_grpc))
    policy = route["route"].pop("retry_policy", None)
    assert policy == (None if is_grpc else {"retry_on": "reset-before-request", "num_retries": 2})
    assert route == {
        "name": "default",
        "match": {"prefix": "/"},
        "route": {
            "cluster": "inbound|9080||",
            "timeout": "0s",
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        },
        "decorator": {"operation": f"{HOST}:9080/*"},
    }
