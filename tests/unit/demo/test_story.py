"""Each stage accepts the traffic it promises and no other."""

import io
from datetime import timedelta

import pytest
from rich.console import Console

from pilothouse.demo.screen import RichScreen
from pilothouse.demo.story import STAGES, Outcome, Stage, knows_all_callers
from pilothouse.demo.traffic import Sample, Seen, summarise

ALL_V1, SPLIT, JASON_V2, FAULT = STAGES


def seen(
    counts: dict[str, int],
    *,
    ratings: int | None = None,
    latency_seconds: float = 0.01,
    status: int = 200,
) -> Seen:
    return summarise(
        Sample(
            user="",
            started=0.0,
            latency_seconds=latency_seconds,
            status=status,
            version=version,
            ratings_status=ratings,
        )
        for version, count in counts.items()
        for _ in range(count)
    )


V1 = seen({"v1": 100})
SPLIT_FAIRLY = seen({"v1": 152, "v2": 71, "v3": 77})
V2_WITH_STARS = seen({"v2": 30}, ratings=200)
V2_AT_FAULT = seen({"v2": 12}, ratings=503, latency_seconds=0.52)


@pytest.mark.parametrize(
    ("stage", "anyone", "jason", "accepted"),
    [
        (ALL_V1, V1, V1, True),
        (ALL_V1, V1, V2_WITH_STARS, False),
        (ALL_V1, seen({"v1": 99, "v2": 1}), V1, False),
        (ALL_V1, seen({"v1": 99}, status=503), V1, False),
        (SPLIT, SPLIT_FAIRLY, SPLIT_FAIRLY, True),
        (SPLIT, V1, SPLIT_FAIRLY, False),
        (SPLIT, seen({"v1": 100, "v2": 100, "v3": 100}), SPLIT_FAIRLY, False),
        (JASON_V2, V1, V2_WITH_STARS, True),
        (JASON_V2, V1, V1, False),
        (JASON_V2, SPLIT_FAIRLY, V2_WITH_STARS, False),
        (JASON_V2, V1, V2_AT_FAULT, False),
        (FAULT, V1, V2_AT_FAULT, True),
        (FAULT, V1, V2_WITH_STARS, False),
        (FAULT, V1, seen({"v2": 12}, ratings=503), False),
        (FAULT, V2_AT_FAULT, V2_AT_FAULT, False),
    ],
)
def test_a_stage_is_judged_by_its_promise(
    stage: Stage, anyone: Seen, jason: Seen, accepted: bool
) -> None:
    assert stage.check(anyone, jason) is accepted


def test_samples_are_summed_up() -> None:
    samples = [
        Sample(user="", started=0.0, latency_seconds=n / 100, status=200, version="v1")
        for n in range(1, 101)
    ]

    summed = summarise(samples)

    assert summed.count == 100
    assert summed.share("v1") == 1.0
    assert summed.share("v2") == 0.0
    assert summed.median_seconds == pytest.approx(0.505)
    assert summarise([]).share("v1") == 0.0


def test_plain_paper_gets_each_outcome_once() -> None:
    paper = io.StringIO()
    with RichScreen(Console(file=paper, width=120)) as screen:
        screen.stage(2, SPLIT)
        screen.edit("virtual-service-reviews.yaml", "-old [v1]\n+new\n")
        screen.table(SPLIT_FAIRLY, SPLIT_FAIRLY)
        screen.outcome(
            Outcome(
                stage=SPLIT,
                anyone=SPLIT_FAIRLY,
                jason=V2_AT_FAULT,
                is_seen=True,
                applied=timedelta(milliseconds=23),
                first_seen=timedelta(milliseconds=31),
            )
        )
    text = paper.getvalue()

    assert "2. A canary" in text
    assert "-old [v1]" in text
    assert text.count("median") == 1
    assert "51%" in text
    assert "503" in text
    assert "23 ms after the edit" in text
    assert "came after 31 ms" in text
    assert "Seen in traffic, as promised." in text


def test_a_broken_promise_is_said() -> None:
    paper = io.StringIO()
    with RichScreen(Console(file=paper, width=120)) as screen:
        screen.outcome(Outcome(stage=SPLIT, anyone=V1, jason=V1, is_seen=False))

    assert "NOT seen in traffic" in paper.getvalue()


def test_every_call_must_come_with_an_identity() -> None:
    """A stage is not seen as long as anything travels in plain text (S-PA-6)."""

    def summed(*callers: tuple[str, str]) -> Seen:
        samples = [
            Sample(user="", started=0.0, latency_seconds=0.0, status=200, callers=(pair,))
            for pair in callers
        ]
        return summarise(samples)

    known = ("details", "spiffe://cluster.local/ns/default/sa/bookinfo-productpage")
    assert knows_all_callers(summed(known, known))
    assert summed(known, known).callers == {known: 2}
    assert not knows_all_callers(summed(known, ("reviews", "")))
