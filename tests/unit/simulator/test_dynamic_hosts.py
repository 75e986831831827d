"""Hosts looked up when they are called (SE-17), and filters that read in passing (LS-18)."""

import story

from pilothouse.simulator.actions import HttpForward, TcpForward
from pilothouse.simulator.request import ApplicationProtocol, Request, TlsHello
from pilothouse.simulator.served import ServedConfig
from pilothouse.simulator.simulate import simulate


def served(name: str, proxy: str) -> ServedConfig:
    """What a proxy of a story is served."""
    resources = story.load(name).served(proxy)
    return ServedConfig.read(each for kind in resources.values() for each in kind)


def test_a_host_of_a_wildcard_is_called_by_its_name() -> None:
    """SE-17: the host of the request is what is connected to; it need not be listed anywhere."""
    config = served("dynamic_dns", "client")
    found = simulate(config, Request(address="192.0.2.7", port=80, host="a.cdn.example"))
    assert isinstance(found.action, HttpForward)
    assert [e.address for e in found.action.chosen.reach.endpoints] == ["a.cdn.example:80"]
    assert found.status is None
    found = simulate(config, Request(address="192.0.2.7", port=80, host="a.grpc.example"))
    assert isinstance(found.action, HttpForward)
    assert [e.address for e in found.action.chosen.reach.endpoints] == ["a.grpc.example:443"]


def test_an_sni_of_a_wildcard_is_called_by_its_name() -> None:
    """SE-17: of TLS the SNI, at the port of the service; the filter that looks it up is silent."""
    request = Request(
        address="192.0.2.7",
        port=443,
        protocol=ApplicationProtocol.TCP,
        tls=TlsHello(server_name="b.cdn.example"),
    )
    found = simulate(served("dynamic_dns", "client"), request)
    assert isinstance(found.action, TcpForward)
    assert [e.address for e in found.action.chosen.reach.endpoints] == ["b.cdn.example:443"]
    assert found.notes == ()


def test_operations_of_mongo_are_read_in_passing() -> None:
    """LS-18: the filter in front of tcp_proxy changes nothing of the way."""
    config = served("tcp_and_auto_ports", "client")
    [listener] = [each for each in config.listeners if each.name.endswith("_27017")]
    names = [each.name for chain in listener.filter_chains for each in chain.filters]
    assert names == ["envoy.filters.network.mongo_proxy", "envoy.filters.network.tcp_proxy"]
    address = listener.address.socket_address.address
    request = Request(address=address, port=27017, protocol=ApplicationProtocol.TCP)
    found = simulate(config, request)
    assert isinstance(found.action, TcpForward)
    assert found.notes == ()
