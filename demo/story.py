"""
The story: four ways to route the same mesh, each shown by an edit and by what readers then saw.

A stage is data: which file changes, which Envoys must take it over, and what the samples of real
requests must look like before and after. `tell` plays the stages in order on a `Screen`.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import unified_diff
from typing import Final, Protocol

from pilothouse.demo.bookinfo import stage_text
from pilothouse.demo.mesh import FRONT, BookinfoMesh
from pilothouse.demo.traffic import Sample, Seen, Traffic, summarise

ANYONE: Final = ""
JASON: Final = "jason"
READERS: Final = {ANYONE: 4, JASON: 2}

_REVIEWS: Final = "virtual-service-reviews.yaml"
_RATINGS: Final = "virtual-service-ratings.yaml"
_DELAY_SECONDS: Final = 0.5
# After Envoy's main thread has new routes, its worker gets them with its next event.
_SETTLE_SECONDS: Final = 0.1
_REFRESH_SECONDS: Final = 0.25
_POLL_SECONDS: Final = 0.02

Check = Callable[[Seen, Seen], bool]
"""Whether the samples of anyone and of jason are what the stage promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """
    One edit and its effect.

    `file` in the stages folder replaces `target` in the mesh; the Envoys of `callers` apply it.
    `is_new` recognises a sample that could not have been seen before the edit; None if any could.
    `anyone` and `jason` are how many samples of each are judged by `check`.
    """

    title: str
    promise: str
    file: str
    target: str
    callers: tuple[str, ...]
    check: Check
    is_new: Callable[[Sample], bool] | None = None
    anyone: int = 100
    jason: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What a stage came to.

    `applied` is from the rename of the file to the last Envoy's new routes, `first_seen` from the
    rename to the end of the first request that saw the difference; None where nothing was edited or
    the difference cannot be told from one request.
    """

    stage: Stage
    anyone: Seen
    jason: Seen
    is_seen: bool
    applied: timedelta | None = None
    first_seen: timedelta | None = None


class Screen(Protocol):
    """Shows the story; on a terminal, on plain paper, or nowhere."""

    def stage(self, number: int, stage: Stage) -> None:
        """Open a stage."""

    def edit(self, target: str, diff: str) -> None:
        """Show an edit that is about to be made."""

    def table(self, anyone: Seen, jason: Seen) -> None:
        """Show the samples so far; called again and again."""

    def outcome(self, outcome: Outcome) -> None:
        """Close a stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the story is told: a pause for reading, and the patience with each stage."""

    read_seconds: float
    patience_seconds: float = 60.0


def knows_all_callers(seen: Seen) -> bool:
    """Tell whether every call inside the mesh came with a verified identity."""
    return all(identity for _, identity in seen.callers)


def _all_v1(seen: Seen) -> bool:
    return set(seen.statuses) == {200} and set(seen.versions) == {"v1"}


def _is_split(seen: Seen) -> bool:
    # Four standard errors and a half of 300 samples: chance alone does not fail it.
    near = {"v1": 0.50, "v2": 0.25, "v3": 0.25}
    return set(seen.statuses) == {200} and all(
        abs(seen.share(version) - share) < 0.13 for version, share in near.items()
    )


def _all_v2(seen: Seen, ratings_status: int) -> bool:
    return (
        set(seen.statuses) == {200}
        and set(seen.versions) == {"v2"}
        and set(seen.ratings) == {ratings_status}
    )


STAGES: Final = (
    Stage(
        title="All traffic to reviews v1",
        promise="three versions run, but everyone sees v1, which shows no stars",
        file="1-all-v1.yaml",
        target=_REVIEWS,
        callers=(FRONT,),
        check=lambda anyone, jason: _all_v1(anyone) and _all_v1(jason),
    ),
    Stage(
        title="A canary: 50 / 25 / 25",
        promise="half of the readers stay on v1, a quarter each get v2 and v3",
        file="2-canary.yaml",
        target=_REVIEWS,
        callers=(FRONT,),
        check=lambda anyone, jason: _is_split(anyone) and {"v1", "v2", "v3"} >= set(jason.versions),
        is_new=lambda sample: sample.version in {"v2", "v3"},
        anyone=300,
    ),
    Stage(
        title="Only jason sees v2",
        promise="requests with the header `end-user: jason` go to v2, all others to v1",
        file="3-jason.yaml",
        target=_REVIEWS,
        callers=(FRONT,),
        check=lambda anyone, jason: _all_v1(anyone) and _all_v2(jason, 200),
    ),
    Stage(
        title="A fault, for jason alone",
        promise="his calls to ratings are held for half a second, then answered 503",
        file="4-fault.yaml",
        target=_RATINGS,
        callers=("reviews-v2",),
        check=lambda anyone, jason: (
            _all_v1(anyone) and _all_v2(jason, 503) and jason.median_seconds >= _DELAY_SECONDS
        ),
        is_new=lambda sample: sample.ratings_status == 503,
        jason=12,
    ),
)


async def tell(mesh: BookinfoMesh, traffic: Traffic, screen: Screen, pace: Pace) -> bool:
    """
    Play all stages and return whether each was seen in traffic.

    Raises: DemoError: A program of the mesh has ended.
    """
    seen = True
    for number, stage in enumerate(STAGES, start=1):
        screen.stage(number, stage)
        await asyncio.sleep(pace.read_seconds)
        outcome = await play(mesh, traffic, screen, stage, pace)
        screen.outcome(outcome)
        seen = seen and outcome.is_seen
        await asyncio.sleep(pace.read_seconds)
    return seen


async def play(
    mesh: BookinfoMesh, traffic: Traffic, screen: Screen, stage: Stage, pace: Pace
) -> Outcome:
    """Make the edit of `stage`, if it is one, and watch the traffic until it is as promised."""
    deadline = time.monotonic() + pace.patience_seconds
    old = (mesh.config_dir / stage.target).read_text(encoding="utf-8")
    new = stage_text(stage.file, loopback=mesh.ground.loopback)
    traffic.forget()
    edited = time.monotonic()
    applied: timedelta | None = None
    if new != old:
        screen.edit(stage.target, _diff(old, new))
        await asyncio.sleep(pace.read_seconds)
        traffic.forget()
        edited, edited_at = time.monotonic(), datetime.now(UTC)
        mesh.write(stage.target, new)
        applied = await _applied(mesh, stage, edited_at, deadline)
    start = time.monotonic() + _SETTLE_SECONDS
    anyone, jason, is_seen = await _watch(mesh, traffic, screen, stage, start, deadline)
    return Outcome(
        stage=stage,
        anyone=anyone,
        jason=jason,
        is_seen=is_seen,
        applied=applied,
        first_seen=_first_seen(traffic, stage, edited) if applied else None,
    )


async def _applied(
    mesh: BookinfoMesh, stage: Stage, edited_at: datetime, deadline: float
) -> timedelta | None:
    """Wait until every caller's Envoy has newer routes; None if time runs out."""
    latest = edited_at
    for caller in stage.callers:
        while True:
            mesh.raise_if_ended()
            updated = await mesh.routes_updated(caller)
            # Envoy's clock is ours, cut to milliseconds.
            if updated is not None and updated >= edited_at - timedelta(milliseconds=1):
                latest = max(latest, updated)
                break
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)
    return latest - edited_at


async def _watch(
    mesh: BookinfoMesh,
    traffic: Traffic,
    screen: Screen,
    stage: Stage,
    start: float,
    deadline: float,
) -> tuple[Seen, Seen, bool]:
    """Judge windows of samples until one is as promised, or time runs out."""
    while True:
        await asyncio.sleep(_REFRESH_SECONDS)
        mesh.raise_if_ended()
        traffic.raise_if_ended()
        samples = traffic.since(start)
        anyone = summarise(sample for sample in samples if sample.user == ANYONE)
        jason = summarise(sample for sample in samples if sample.user == JASON)
        screen.table(anyone, jason)
        is_late = time.monotonic() > deadline
        if anyone.count >= stage.anyone and jason.count >= stage.jason:
            is_known = knows_all_callers(anyone) and knows_all_callers(jason)
            if is_known and stage.check(anyone, jason):
                return anyone, jason, True
            if not is_late:
                # The first requests may have met a mesh that was still warming up.
                start = time.monotonic()
        if is_late:
            return anyone, jason, False


def _first_seen(traffic: Traffic, stage: Stage, edited: float) -> timedelta | None:
    if stage.is_new is None:
        return None
    new = [sample.ended for sample in traffic.since(edited) if stage.is_new(sample)]
    return timedelta(seconds=min(new) - edited) if new else None


def _diff(old: str, new: str) -> str:
    lines = unified_diff(old.splitlines(keepends=True), new.splitlines(keepends=True), n=3)
    return "".join(list(lines)[2:])  # without the two lines that name the files
