"""When bundles of roots are asked for, and what stays when nobody answers (C-R-6)."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path

import pytest
from certificates import NOW, PEM, make_ca

from pilothouse.api.mesh_config import CertificateData
from pilothouse.certs.oidc_fetch import FetchFailed
from pilothouse.certs.spiffe_bundle import SpiffeBundle
from pilothouse.model.inputs import FETCHED_BUNDLES
from pilothouse.model.trust import FetchedBundle
from pilothouse.runtime.bundle_fetches import KEPT_FILE, BundleFetches, fetch_bundle
from pilothouse.runtime.commit import Change

URL, OTHER = "https://a.example/bundle", "b.example/bundle"
ONE, TWO = (make_ca(name, NOW)[0].public_bytes(PEM) for name in ("one", "two"))


class Place:
    """A mesh config, what answers at its URLs, and a clock."""

    def __init__(self, directory: Path | None = None) -> None:
        self.wanted: list[CertificateData] = [CertificateData(spiffe_bundle_url=URL)]
        self.answers: dict[str, SpiffeBundle] = {}
        self.asked: list[str] = []
        self.rows: dict[object, object] = {}
        self.seconds = 100.0
        self.fetches = BundleFetches(
            lambda: self.wanted,
            self._put,
            directory=directory,
            clock=lambda: self.seconds,
            fetch=self._fetch,
        )

    async def _fetch(self, url: str) -> SpiffeBundle:
        self.asked.append(url)
        if url not in self.answers:
            raise FetchFailed("away")
        return self.answers[url]

    async def _put(self, changes: Iterable[Change]) -> None:
        for kind, key, row in changes:
            assert kind == FETCHED_BUNDLES.name
            self.rows[key] = row

    def said(self) -> list[tuple[str, str]]:
        return [(each.severity.name, each.ref.path) for each in self.fetches.findings()]

    async def after(self, seconds: float) -> int:
        """Let time pass; return how often somebody was asked then."""
        self.seconds += seconds
        before = len(self.asked)
        await self.fetches.step()
        return len(self.asked) - before


async def test_each_half_hour() -> None:
    """As istiod polls; a URL that is new is asked at once."""
    place = Place()
    place.answers = {URL: SpiffeBundle(roots_pem=ONE), OTHER: SpiffeBundle(roots_pem=TWO)}
    assert await place.after(0) == 1
    assert place.rows == {URL: FetchedBundle(roots_pem=ONE)}
    assert await place.after(1_799) == 0
    place.wanted.append(CertificateData(spiffe_bundle_url=OTHER))
    assert await place.after(0) == 1
    assert await place.after(1) == 1
    assert place.rows == {URL: FetchedBundle(roots_pem=ONE), OTHER: FetchedBundle(roots_pem=TWO)}


async def test_as_its_owner_wants() -> None:
    """Within bounds: no more often than once a minute, and never less than each half hour."""
    place = Place()
    for hint, waits in ((600, 600), (1, 60), (10**6, 1_800)):
        place.answers[URL] = SpiffeBundle(roots_pem=ONE, refresh=timedelta(seconds=hint))
        await place.after(1_800)
        assert await place.after(waits - 1) == 0
        assert await place.after(1) == 1


async def test_a_place_that_is_away() -> None:
    """It is asked again, sooner at first; its roots stay, and why is said."""
    place = Place()
    place.answers[URL] = SpiffeBundle(roots_pem=ONE)
    await place.after(0)
    del place.answers[URL]
    assert await place.after(1_800) == 1
    assert place.rows[URL] == FetchedBundle(roots_pem=ONE)
    assert place.said() == [("WARNING", "caCertificates[0].spiffeBundleUrl")]
    waited = []
    for _ in range(12):
        seconds = 0
        while not await place.after(1):
            seconds += 1
        waited.append(seconds + 1)
    assert waited[:3] == [2, 4, 8]
    assert waited[-1] == 300
    place.answers[URL] = SpiffeBundle(roots_pem=TWO)
    await place.after(300)
    assert place.rows[URL] == FetchedBundle(roots_pem=TWO)
    assert place.said() == []


async def test_nothing_that_happens_there_ends_the_server() -> None:
    """Whatever a URL or an answer does to the libraries below, it is a failure to fetch."""

    async def stumble(_url: str) -> SpiffeBundle:
        raise UnicodeError("label empty or too long")

    place = Place()
    place.fetches._fetch = stumble
    await place.after(0)
    (said,) = place.fetches.findings()
    assert "cannot be asked (UnicodeError" in said.message


@pytest.mark.parametrize(
    "url",
    ["https://a..b/", "https://" + "x" * 300, "https://[::1%25eth0]:1/", "https://\u2100.example/",
     "https://127.0.0.1:1/", "https://169.254.169.254/latest", "https://a b/"],
)  # fmt: skip
async def test_odd_urls_are_failures_too(url: str) -> None:
    """The real way to fetch, which knows no such place or must not go there."""
    place = Place()
    place.wanted = [CertificateData(spiffe_bundle_url=url)]
    place.fetches._fetch = fetch_bundle
    await place.after(0)
    assert place.rows == {}
    assert len(place.said()) <= 1  # none if the check of the config has refused it


async def test_a_place_that_never_answered() -> None:
    """That is worse: there is nothing to go on with."""
    place = Place()
    assert place.said() == []
    await place.after(0)
    assert place.rows == {}
    assert place.said() == [("ERROR", "caCertificates[0].spiffeBundleUrl")]
    place.wanted = []
    await place.after(0)
    assert place.said() == []


async def test_what_nobody_wants_any_more_is_forgotten(tmp_path: Path) -> None:
    """The row goes, and so does what was kept."""
    place = Place(tmp_path)
    place.answers[URL] = SpiffeBundle(roots_pem=ONE)
    await place.after(0)
    place.wanted = [CertificateData(pem=ONE.decode(), spiffe_bundle_url=URL)]
    assert await place.after(5_000) == 0
    assert place.rows == {URL: None}
    assert Place(tmp_path).fetches.rows() == []


async def test_the_next_server_has_what_this_one_had(tmp_path: Path) -> None:
    """A restart while the place is away takes nobody's trust."""
    place = Place(tmp_path)
    place.answers[URL] = SpiffeBundle(roots_pem=ONE)
    await place.after(0)
    assert (tmp_path / KEPT_FILE).stat().st_mode & 0o077 == 0
    later = Place(tmp_path)
    assert later.fetches.rows() == [(FETCHED_BUNDLES.name, URL, FetchedBundle(roots_pem=ONE))]
    assert await later.after(0) == 1
    assert later.rows == {}
    assert later.said() == [("WARNING", "caCertificates[0].spiffeBundleUrl")]


async def test_a_damaged_file_is_no_obstacle(tmp_path: Path) -> None:
    """What cannot be read is fetched anew."""
    for content in ("{", "[]", '{"https://a.example/": "nonsense"}'):
        (tmp_path / KEPT_FILE).write_text(content)
        assert Place(tmp_path).fetches.rows() == []


async def test_only_what_may_be_fetched_is_asked() -> None:
    """The check of the mesh config has said why not."""
    place = Place()
    place.wanted = [CertificateData(spiffe_bundle_url="http://a.example/"), CertificateData()]
    assert await place.after(0) == 0
