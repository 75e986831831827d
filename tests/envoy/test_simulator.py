"""
The simulator and a real Envoy take every request the same way, over every golden story.

Hundreds of generated requests per proxy: which listener, filter chain, route and cluster, which
status where the proxy answers itself, where a redirect leads, what the upstream is asked.
"""

import isolation
import pytest
import story
from comparison import disagreements

from pilothouse.simulator.served import ServedConfig, type_name

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.root,
    pytest.mark.skipif(bool(isolation.why_not()), reason=isolation.why_not()),
]
COUNT = 300
CASES = [(name, proxy) for name in story.names() for proxy in story.load(name).proxies]


def why_not_comparable(served: ServedConfig) -> str:
    """Say what a stock Envoy without a control plane lacks for this config; empty if nothing."""
    for listener in served.listeners:
        address = listener.address.socket_address.address
        if listener.use_original_dst.value and address == "::":
            return "it takes IPv6 only, and interception is set up for IPv4"
        if listener.transparent.value:
            return "it takes connections by TPROXY, for which Envoy needs privileges"
        for chain in listener.filter_chains:
            for each in chain.filters:
                if b"istio.alpn" in each.typed_config.value:
                    return "it is for an Envoy with Istio's own filters"
                if "istio" in type_name(each.typed_config):
                    return "it is for an Envoy with Istio's own filters"
    return ""


@pytest.mark.parametrize(("name", "proxy"), CASES)
async def test_envoy_takes_the_same_way(name: str, proxy: str) -> None:
    resources = story.load(name).served(proxy)
    served = ServedConfig.read(each for kind in resources.values() for each in kind)
    reason = why_not_comparable(served)
    if reason:
        pytest.skip(f"{name}/{proxy}: {reason}")
    different = await disagreements(served, COUNT)
    assert not different, f"{len(different)} differences\n" + "\n".join(different[:5])
