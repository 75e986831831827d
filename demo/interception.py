"""
The packet filter rules that lead a workload's TCP traffic through its sidecar.

Pure: texts for ``iptables-restore`` and for ``nft -f``, with the chains Istio's own set-up makes,
so that whoever knows those finds their way. Who installs them is `netns.py`.
"""

from typing import Final

PROXY_UID: Final = 1337
OUTBOUND_PORT: Final = 15001
INBOUND_PORT: Final = 15006

_DIRECT_INBOUND_PORTS: Final = (15008, 15020, 15021, 15090)
# The source address of what Envoy sends to its own program through a passthrough cluster.
_INBOUND_PASSTHROUGH: Final = "127.0.0.6"


def iptables_rules() -> str:
    """Return the rules for ``iptables-restore --noflush``."""
    lines = [
        "*nat",
        ":ISTIO_INBOUND - [0:0]",
        ":ISTIO_IN_REDIRECT - [0:0]",
        ":ISTIO_OUTPUT - [0:0]",
        ":ISTIO_REDIRECT - [0:0]",
        "-A PREROUTING -p tcp -j ISTIO_INBOUND",
        "-A OUTPUT -p tcp -j ISTIO_OUTPUT",
        f"-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports {OUTBOUND_PORT}",
        f"-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports {INBOUND_PORT}",
        *(f"-A ISTIO_INBOUND -p tcp --dport {p} -j RETURN" for p in _DIRECT_INBOUND_PORTS),
        "-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT",
        f"-A ISTIO_OUTPUT -s {_INBOUND_PASSTHROUGH}/32 -o lo -j RETURN",
    ]
    for kind in ("uid", "gid"):
        of_proxy = f"-m owner --{kind}-owner {PROXY_UID}"
        of_others = f"-m owner ! --{kind}-owner {PROXY_UID}"
        lines += [
            # The proxy calling its own workload by its address: through the inbound side.
            f"-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp {of_proxy} -j ISTIO_IN_REDIRECT",
            # The program talking to itself.
            f"-A ISTIO_OUTPUT -o lo {of_others} -j RETURN",
            f"-A ISTIO_OUTPUT {of_proxy} -j RETURN",
        ]
    lines += [
        "-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A ISTIO_OUTPUT -j ISTIO_REDIRECT",
        "COMMIT",
    ]
    return "\n".join(lines) + "\n"


def nft_rules() -> str:
    """Return the same rules for ``nft -f``."""
    direct = ", ".join(str(port) for port in _DIRECT_INBOUND_PORTS)
    owners = "".join(
        f"""
    oifname "lo" ip daddr != 127.0.0.1 meta {kind} {PROXY_UID} goto ISTIO_IN_REDIRECT
    oifname "lo" meta {kind} != {PROXY_UID} return
    meta {kind} {PROXY_UID} return"""
        for kind in ("skuid", "skgid")
    )
    return f"""table ip istio {{
  chain ISTIO_REDIRECT {{
    meta l4proto tcp redirect to :{OUTBOUND_PORT}
  }}
  chain ISTIO_IN_REDIRECT {{
    meta l4proto tcp redirect to :{INBOUND_PORT}
  }}
  chain ISTIO_INBOUND {{
    tcp dport {{ {direct} }} return
    goto ISTIO_IN_REDIRECT
  }}
  chain ISTIO_OUTPUT {{
    oifname "lo" ip saddr {_INBOUND_PASSTHROUGH} return{owners}
    ip daddr 127.0.0.1 return
    goto ISTIO_REDIRECT
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    meta l4proto tcp jump ISTIO_INBOUND
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    meta l4proto tcp jump ISTIO_OUTPUT
  }}
}}
"""
