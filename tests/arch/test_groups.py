"""
Tests that share addresses or something costly run one after the other, also with many workers.

Without it, two meshes on the same loopback addresses lose each other's requests, and the tests
that count them fail now and then.
"""

import os

import pytest


@pytest.mark.xdist_group("groups")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="runs in one process")
def test_a_group_is_known_to_the_scheduler(request: pytest.FixtureRequest) -> None:
    """pytest-xdist groups by a suffix of the test's id; with it gone, marks do nothing."""
    assert request.node.nodeid.endswith("@groups")
