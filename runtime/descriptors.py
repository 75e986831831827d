"""
As many open files as the system gives a process that asks.

The usual limit of 1,024 is for programs that use `select`. A server that reaches it can neither
take a proxy's connection nor read its own config, and strangers could bring it there.
"""

import contextlib
import resource


def take_all() -> int:
    """Raise the soft limit of open files to the hard one; return what it is."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        return most
    return soft
