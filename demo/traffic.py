"""
Sends real requests to the mesh, without pause, and keeps what each of them saw.

A stage of the story is judged by these samples alone: what the control plane believes it did does
not count.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from types import TracebackType
from typing import Any, Final, Self

import aiohttp

_TIMEOUT: Final = aiohttp.ClientTimeout(total=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """
    What one request for the product page saw.

    `started` is on the clock of `time.monotonic`; `status` and `ratings_status` are HTTP codes, 0
    if there was no answer, `ratings_status` None if that version of reviews asks nobody; `version`
    is empty if reviews did not answer. `callers` are pairs of a service that was called for the
    page and the identity its sidecar verified of the caller (empty: none).
    """

    user: str
    started: float
    latency_seconds: float
    status: int
    version: str = ""
    ratings_status: int | None = None
    callers: tuple[tuple[str, str], ...] = ()

    @property
    def ended(self) -> float:
        """When the answer was complete, on the same clock as `started`."""
        return self.started + self.latency_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Samples of one user, summed up."""

    count: int
    versions: Counter[str]
    statuses: Counter[int]
    ratings: Counter[int]
    callers: Counter[tuple[str, str]]
    median_seconds: float

    def share(self, version: str) -> float:
        """Part of all requests that this version of reviews answered, 0 to 1."""
        return self.versions[version] / self.count if self.count else 0.0


def summarise(samples: Iterable[Sample]) -> Seen:
    """Sum up `samples`."""
    kept = list(samples)
    return Seen(
        count=len(kept),
        versions=Counter(sample.version for sample in kept if sample.version),
        statuses=Counter(sample.status for sample in kept),
        ratings=Counter(s.ratings_status for s in kept if s.ratings_status is not None),
        callers=Counter(pair for sample in kept for pair in sample.callers),
        median_seconds=median(s.latency_seconds for s in kept) if kept else 0.0,
    )


class Traffic:
    """
    Readers that load the page again and again; use as an async context manager.

    Args:
        url: The product page.
        readers: How many readers of each name there are; the empty name is not signed in.
        connector: Makes the connector, which may lead into a network namespace.
        pause_seconds: What each reader waits between answers.
    """

    def __init__(
        self,
        url: str,
        readers: dict[str, int],
        *,
        connector: Callable[[], aiohttp.BaseConnector] = aiohttp.TCPConnector,
        pause_seconds: float = 0.025,
    ) -> None:
        self._url = url
        self._readers = readers
        self._connector = connector
        self._pause_seconds = pause_seconds
        self._samples: list[Sample] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Set the readers to work."""
        for user, count in self._readers.items():
            self._tasks += [asyncio.create_task(self._read(user)) for _ in range(count)]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Send the readers home."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    def since(self, start: float) -> list[Sample]:
        """Return the samples whose request began at or after `start` (monotonic seconds)."""
        return [sample for sample in self._samples if sample.started >= start]

    def forget(self) -> None:
        """Drop all samples so far."""
        self._samples.clear()

    def raise_if_ended(self) -> None:
        """Raise what ended a reader, if one has ended."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _read(self, user: str) -> None:
        headers = {"accept": "application/json"}
        if user:
            headers["end-user"] = user
        async with aiohttp.ClientSession(
            headers=headers, timeout=_TIMEOUT, connector=self._connector()
        ) as session:
            while True:
                self._samples.append(await self._sample(session, user))
                await asyncio.sleep(self._pause_seconds)

    async def _sample(self, session: aiohttp.ClientSession, user: str) -> Sample:
        started = time.monotonic()
        status, page = 0, None
        with suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
            async with session.get(self._url) as response:
                status = response.status
                page = await response.json() if status == 200 else None
        return _sample(user, started, time.monotonic() - started, status, page)


def _sample(
    user: str, started: float, latency_seconds: float, status: int, page: dict[str, Any] | None
) -> Sample:
    if page is None:
        return Sample(user=user, started=started, latency_seconds=latency_seconds, status=status)
    reviews, details = page["reviews"], page["details"]
    # The page itself is always shown; the worst of what it asked for is what the reader saw.
    worst = max(status, reviews["status"], details["status"])
    body = reviews["body"] if reviews["status"] == 200 else {}
    callers = []
    if details["status"] == 200:
        callers.append(("details", details["body"]["caller"]))
    if body:
        callers.append(("reviews", body["caller"]))
        if body["ratings_status"] == 200:
            callers.append(("ratings", body["ratings_caller"]))
    return Sample(
        user=user,
        started=started,
        latency_seconds=latency_seconds,
        status=worst,
        version=body.get("version", ""),
        ratings_status=body.get("ratings_status"),
        callers=tuple(callers),
    )
