"""
Roots that the mesh config names by URL (``spiffeBundleUrl``, C-R-6): fetched, renewed, kept.

Each URL is asked when it appears, then every half hour or as soon as its owner wants, and sooner
after a failure. What was fetched last stays in use until something better comes, also over a
restart: a place that is away for a while must not take the trust of a mesh with it. Roots are
rows; what is wrong is a finding.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import structlog

from pilothouse.api.mesh_config import CertificateData
from pilothouse.api.root_certificates import BadRoots, bundle_url, read_roots
from pilothouse.certs.oidc_fetch import FetchFailed, fetch_json
from pilothouse.certs.oidc_issuers import is_loopback
from pilothouse.certs.private_files import write_private
from pilothouse.certs.spiffe_bundle import SpiffeBundle, read_bundle
from pilothouse.graph.findings import ConfigRef, Finding, Severity
from pilothouse.model.inputs import FETCHED_BUNDLES
from pilothouse.model.trust import FetchedBundle
from pilothouse.runtime.commit import Change

NOT_FETCHED: Final = "RootsNotFetched"
KEPT_FILE: Final = "spiffe-bundles.json"
REFRESH: Final = timedelta(minutes=30)
SHORTEST_REFRESH: Final = timedelta(minutes=1)
FIRST_RETRY: Final = timedelta(seconds=2)
LONGEST_RETRY: Final = timedelta(minutes=5)
MOST_URLS: Final = 64
_LOOK_SECONDS: Final = 1.0

Fetch = Callable[[str], Awaitable[SpiffeBundle]]
"""Ask a URL. Raises: FetchFailed, BadRoots."""

log = structlog.get_logger()


async def fetch_bundle(url: str) -> SpiffeBundle:
    """
    Ask a bundle endpoint, verified by what this machine trusts.

    Raises: FetchFailed, BadRoots.
    """
    # Made anew each time, as what a machine trusts changes too; reads a file of some size.
    tls = await asyncio.to_thread(ssl.create_default_context)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    url = bundle_url(url)
    # The mesh config is the operator's word, so a URL may name this machine.
    to_loopback = is_loopback(urlsplit(url).hostname or "")
    return read_bundle(await fetch_json(url, to_loopback=to_loopback, tls=tls))


class BundleFetches:
    """See the module docstring; `run` it on the event loop that commits."""

    def __init__(
        self,
        wanted: Callable[[], Sequence[CertificateData]],
        put: Callable[[Iterable[Change]], Awaitable[None]],
        *,
        directory: Path | None,
        clock: Callable[[], float] = time.monotonic,
        fetch: Fetch = fetch_bundle,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """
        Fetch what `wanted` names, asked anew each time; `directory` keeps it (None: in memory).

        `clock` is seconds that never go back; `on_change` is called when findings may have changed.
        """
        self._wanted = wanted
        self._put = put
        self._file = directory / KEPT_FILE if directory is not None else None
        self._clock = clock
        self._fetch = fetch
        self._on_change = on_change
        self._held: dict[str, FetchedBundle] = {}
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._problems: dict[str, str] = {}

    def rows(self) -> list[Change]:
        """Return what an earlier server has kept, for the first commit."""
        if self._file is None:
            return []
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=dict[str, str])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError) as failure:
            log.warning("roots.kept_bundles_unreadable", problem=str(failure))
            return []
        for url, pem in list(kept.items())[:MOST_URLS]:
            with suppress(BadRoots):
                read_roots(pem.encode())
                self._held[url] = FetchedBundle(roots_pem=pem.encode())
        return [(FETCHED_BUNDLES.name, url, row) for url, row in self._held.items()]

    def findings(self) -> Iterator[Finding]:
        """Yield what could not be fetched when it was last asked for."""
        for index, data in enumerate(self._wanted()):
            url = data.spiffe_bundle_url
            if data.pem or url not in self._problems:
                continue
            is_kept = url in self._held
            goes_on = "the roots fetched before stay in use" if is_kept else "none is trusted yet"
            yield Finding(
                Severity.WARNING if is_kept else Severity.ERROR,
                NOT_FETCHED,
                ConfigRef("MeshConfig", "", "mesh", f"caCertificates[{index}].spiffeBundleUrl"),
                f"The roots cannot be fetched, so {goes_on}: {self._problems[url].rstrip('.')}.",
                "Correct the URL, or what answers there; it is asked again by itself.",
            )

    async def run(self) -> None:
        """Fetch for ever."""
        while True:
            await self.step()
            await asyncio.sleep(_LOOK_SECONDS)

    async def step(self) -> None:
        """Forget what nobody wants any more, and ask the URLs that are due."""
        urls = list(self._urls())
        gone = [url for url in self._held if url not in urls]
        for url in gone:
            del self._held[url]
        self._due = {url: self._due.get(url, 0.0) for url in urls}
        self._failures = {url: n for url, n in self._failures.items() if url in urls}
        self._problems = {url: text for url, text in self._problems.items() if url in urls}
        due = [url for url, moment in self._due.items() if moment <= self._clock()]
        found = await asyncio.gather(*map(self._ask, due))
        changed = {
            url: row
            for url, row in zip(due, found, strict=True)
            if row is not None and self._held.get(url) != row
        }
        self._held.update(changed)
        if gone or changed:
            self._keep()
            rows: dict[str, FetchedBundle | None] = {**dict.fromkeys(gone), **changed}
            await self._put([(FETCHED_BUNDLES.name, url, row) for url, row in rows.items()])
        if gone or due:
            self._on_change()

    def _urls(self) -> Iterable[str]:
        urls: dict[str, None] = {}
        for each in self._wanted():
            if each.pem or not each.spiffe_bundle_url or len(urls) >= MOST_URLS:
                continue
            with suppress(BadRoots):
                bundle_url(each.spiffe_bundle_url)
                urls[each.spiffe_bundle_url] = None
        return urls

    async def _ask(self, url: str) -> FetchedBundle | None:
        """Return what is there now, None if it cannot be had."""
        before = self._held.get(url)
        try:
            found = await self._fetch(url)
        except Exception as failure:  # noqa: BLE001 (an odd URL or answer must not end the server)
            is_known = isinstance(failure, FetchFailed | BadRoots)
            problem = str(failure) if is_known else f"it cannot be asked ({failure!r})"
            failures = self._failures[url] = self._failures.get(url, 0) + 1
            wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(failures - 1, 16))
            self._due[url] = self._clock() + wait.total_seconds()
            self._problems[url] = problem
            is_kept = before is not None
            log.warning("roots.not_fetched", url=url, problem=problem, last_are_used=is_kept)
            return None
        self._failures.pop(url, None)
        self._problems.pop(url, None)
        wait = min(REFRESH, max(SHORTEST_REFRESH, found.refresh or REFRESH))
        self._due[url] = self._clock() + wait.total_seconds()
        if before is None or found.roots_pem != before.roots_pem:
            log.info("roots.fetched", url=url, roots=found.roots_pem.count(b"-----BEGIN"))
        return FetchedBundle(roots_pem=found.roots_pem)

    def _keep(self) -> None:
        if self._file is None:
            return
        kept = {url: row.roots_pem.decode() for url, row in self._held.items()}
        try:
            write_private(self._file, msgspec.json.encode(kept))
        except OSError as failure:
            log.error("roots.not_kept", problem=str(failure))  # noqa: TRY400
