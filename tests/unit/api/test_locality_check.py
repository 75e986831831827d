"""What Istio refuses, and what it warns of, in locality settings (DR-16 to DR-19)."""

import pytest

from pilothouse.api.destination_rule import (
    LocalityDistribute,
    LocalityFailover,
    LocalityLbSetting,
    ZoneAwareLbSetting,
)
from pilothouse.api.locality_check import check_locality, check_zone_aware
from pilothouse.graph.findings import Severity

EU_TO_US = (LocalityFailover(from_="eu", to="us"),)


def problems(setting, *, has_ejection=True):
    check = check_zone_aware if isinstance(setting, ZoneAwareLbSetting) else check_locality
    found = check(setting, "at", has_ejection=has_ejection)
    return [(each.severity, each.path) for each in found if each.code != "FieldNotTranslated"]


def shares(*pairs):
    made = tuple(LocalityDistribute(from_=source, to=to) for source, to in pairs)
    return LocalityLbSetting(distribute=made)


ALL = {"us": 100}
ERROR, WARNING = Severity.ERROR, Severity.WARNING


@pytest.mark.parametrize(
    "good",
    [
        LocalityLbSetting(),
        LocalityLbSetting(failover=EU_TO_US, failover_priority=("app",)),
        shares(("eu/eu-1", {"eu/*": 80, "us": 20}), ("eu/*", ALL), ("*", ALL)),
        ZoneAwareLbSetting(failover=EU_TO_US, failover_priority=("app",)),
    ],
)
def test_fine(good):
    assert problems(good) == []


@pytest.mark.parametrize(
    ("bad", "where"),
    [
        (shares(("eu", {"us": 50})), "at.distribute[0].to"),
        (shares(("eu", {"us": 0, "asia": 100})), "at.distribute[0].to"),
        (shares(("*/eu-1", ALL)), "at.distribute"),
        (shares(("eu//rack", ALL)), "at.distribute"),
        (shares(("*", ALL), ("eu", ALL)), "at.distribute"),
        (shares(("eu/*", ALL), ("eu/eu-1", ALL)), "at.distribute"),
        (shares(("eu/eu-1", ALL), ("eu", ALL)), "at.distribute"),
        (shares(("eu", {"us": 50, "us/us-1": 50})), "at.distribute[0].to"),
        (LocalityLbSetting(failover=(LocalityFailover(from_="eu", to="eu"),)), "at.failover[0]"),
        (LocalityLbSetting(failover=(LocalityFailover(from_="eu/1", to="us"),)), "at.failover[0]"),
        (LocalityLbSetting(failover=(LocalityFailover(from_="*", to="us"),)), "at.failover[0]"),
        (
            LocalityLbSetting(
                failover=EU_TO_US, failover_priority=("topology.kubernetes.io/region",)
            ),
            "at.failoverPriority",
        ),
        (
            ZoneAwareLbSetting(failover_priority=("topology.kubernetes.io/zone",)),
            "at.failoverPriority[0]",
        ),
    ],
)
def test_refused(bad, where):
    assert problems(bad) == [(ERROR, where)]


def test_shares_and_failover_exclude_each_other():
    setting = LocalityLbSetting(
        distribute=shares(("eu", ALL)).distribute, failover=EU_TO_US, failover_priority=()
    )
    assert problems(setting) == [(ERROR, "at")]


def test_failover_without_ejection_is_idle():
    """The object is used; endpoints never fail over."""
    assert problems(LocalityLbSetting(failover=EU_TO_US), has_ejection=False) == [(WARNING, "at")]
    assert problems(LocalityLbSetting(), has_ejection=False) == []
