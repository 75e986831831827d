"""
What host names of the config lead to: rows that the runtime puts, for names that queries ask for.

A name is asked for by `pilothouse.model.network_gateways`, and looked up and looked up again by
`pilothouse.runtime.name_lookups`. Values only: nothing here asks a name server.
"""

import msgspec


class ResolvedName(msgspec.Struct, frozen=True):
    """
    IP addresses of a host name, sorted; those it last had while it leads nowhere.

    `problem` is why the last look found none, the end of a sentence; empty if it found some.
    """

    addresses: tuple[str, ...] = ()
    problem: str = ""
