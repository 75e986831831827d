"""Laws of the simulator, over the config that each golden story's proxies are served."""

from dataclasses import replace
from functools import cache

import pytest
import story
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import Ground, probes

from pilothouse.model.resource import LDS, Resource
from pilothouse.simulator.choice import Step
from pilothouse.simulator.outcome import NotSimulated, Outcome
from pilothouse.simulator.request import Request
from pilothouse.simulator.served import ServedConfig, UnreadableResource
from pilothouse.simulator.simulate import CERTIFICATE_ASSUMED, simulate

GROUND = Ground(own_address="10.1.0.1", peer_address="10.1.0.99")
CASES = [(name, proxy) for name in story.names() for proxy in story.load(name).proxies]


@cache
def served(name: str, proxy: str) -> ServedConfig:
    resources = story.load(name).served(proxy)
    return ServedConfig.read(each for kind in resources.values() for each in kind)


def some_requests(name: str, proxy: str, seed: int) -> list[Request]:
    return list(probes(served(name, proxy), GROUND, 10, seed))


def way(outcome: Outcome) -> tuple[object, ...]:
    """What was taken, without places in lists."""
    steps = (outcome.listener, outcome.filter_chain, outcome.virtual_host, outcome.route)
    return (*(each and each.name for each in steps[:1]), outcome.clusters, outcome.status)


CASE = st.sampled_from(CASES)
SEED = st.integers(0, 10_000)


@settings(deadline=None, max_examples=60)
@given(CASE, SEED)
def test_the_same_bytes_and_request_give_the_same_answer(case, seed: int) -> None:
    resources = story.load(case[0]).served(case[1])
    again = ServedConfig.read(each for kind in resources.values() for each in kind)
    for request in some_requests(*case, seed):
        assert simulate(again, request) == simulate(served(*case), request)


@settings(deadline=None, max_examples=100)
@given(CASE, SEED)
def test_every_candidate_is_taken_or_has_a_reason(case, seed: int) -> None:
    for request in some_requests(*case, seed):
        outcome = simulate(served(*case), request)
        assert all(each.mismatches and each.mismatches[0].text for each in outcome.losses)
        lost = {step: [e.index for e in outcome.losses if e.step is step] for step in Step}
        listeners = sorted([*lost[Step.LISTENER], *_index(outcome.listener)])
        assert listeners == list(range(len(served(*case).listeners)))
        if outcome.filter_chain is not None:
            assert outcome.listener is not None
            listener = served(*case).listeners[outcome.listener.index]
            known = range(
                -1 if listener.HasField("default_filter_chain") else 0, len(listener.filter_chains)
            )
            assert sorted([*lost[Step.FILTER_CHAIN], outcome.filter_chain.index]) == list(known)
        if outcome.route is not None:
            assert outcome.virtual_host is not None
            routes = sorted([*lost[Step.ROUTE], outcome.route.index])
            assert routes == list(range(len(routes)))


def _index(taken) -> list[int]:
    return [taken.index] if taken else []


@settings(deadline=None, max_examples=60)
@given(CASE, SEED)
def test_the_order_of_listeners_and_hosts_decides_nothing(case, seed: int) -> None:
    """Only routes are taken in order."""
    known = served(*case)
    turned = ServedConfig(
        reversed(known.listeners),
        [_turned(each) for each in known.route_configurations.values()],
        known.clusters.values(),
        known.assignments.values(),
    )
    for request in some_requests(*case, seed):
        assert way(simulate(turned, request)) == way(simulate(known, request))


def _turned(configuration):
    copy = type(configuration)()
    copy.CopyFrom(configuration)
    hosts = list(reversed(copy.virtual_hosts))
    del copy.virtual_hosts[:]
    copy.virtual_hosts.extend(hosts)
    return copy


@settings(deadline=None, max_examples=60)
@given(CASE, SEED, st.integers(0, 1 << 40))
def test_shares_are_whole_and_chance_stays_within_them(case, seed: int, value: int) -> None:
    for request in some_requests(*case, seed):
        action = simulate(served(*case), replace(request, random_value=value)).action
        shares = getattr(action, "shares", ())
        if shares:
            assert sum(each.share for each in shares) == pytest.approx(1)
            assert action.chosen in shares


@pytest.mark.parametrize(("name", "proxy"), CASES)
def test_nothing_a_sidecar_is_served_is_beyond_the_simulator(name: str, proxy: str) -> None:
    """No story uses what can only be answered with a shrug."""
    for seed in range(20):
        for request in some_requests(name, proxy, seed):
            outcome = simulate(served(name, proxy), request)
            assert not isinstance(outcome.action, NotSimulated), request
            assert set(outcome.notes) <= {CERTIFICATE_ASSUMED}, request


def test_unreadable_bytes_are_said() -> None:
    with pytest.raises(UnreadableResource, match="LDS"):
        ServedConfig.read([Resource(LDS, "l", b"\xff\xff")])
