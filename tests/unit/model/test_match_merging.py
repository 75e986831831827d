"""Joining the matches of a root and a delegate (3.5)."""

import pytest
from route_building import from_data

from pilothouse.api.virtual_service import HttpMatch
from pilothouse.model.match_merging import conflict, merged_matches


def match(**fields: object) -> HttpMatch:
    return from_data(fields, HttpMatch)


@pytest.mark.parametrize(
    ("root", "leaf", "field"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, ""),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/ab"}}, ""),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}, ""),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, "uri"),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, "uri"),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}, "uri"),
        ({"uri": {"regex": "a"}}, {"uri": {"regex": "a"}}, "uri"),
        ({"uri": {"prefix": "/a"}}, {"uri": {"regex": "/a.*"}}, "uri"),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}, "method"),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"y": {"exact": "2"}}}, ""),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "2"}}}, "headers"),
        ({"queryParams": {"q": {"exact": "1"}}}, {"queryParams": {"q": {}}}, "queryParams"),
        ({"withoutHeaders": {"x": {"prefix": "a"}}}, {"withoutHeaders": {"x": {"prefix": "b"}}},
         "withoutHeaders"),
        ({"ignoreUriCase": True}, {}, "ignoreUriCase"),
        ({"port": 80}, {}, ""),
        ({"port": 80}, {"port": 81}, "port"),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "a"}, ""),
        ({"sourceNamespace": "a"}, {}, "sourceNamespace"),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"v": "1"}}, ""),
        ({"sourceLabels": {"app": "a"}}, {"sourceLabels": {"app": "b"}}, "sourceLabels"),
        ({"gateways": ["mesh", "edge"]}, {"gateways": ["mesh"]}, ""),
        ({"gateways": ["mesh"]}, {"gateways": ["mesh", "edge"]}, "gateways"),
    ],
)  # fmt: skip
def test_a_delegate_may_only_narrow(root, leaf, field):
    """VS-25: what both speak of, the root must let through."""
    assert conflict(match(**root), match(**leaf)) == field


def test_an_empty_list_lets_everything_through():
    one = (match(uri={"prefix": "/a"}),)
    assert merged_matches(one, ()) == merged_matches((), one) == one
    assert merged_matches((), ()) == ()


def test_conditions_add_up():
    root = match(name="r", uri={"prefix": "/a"}, headers={"x": {"exact": "1"}}, port=80)
    leaf = match(name="l", method={"exact": "GET"}, headers={"y": {"exact": "2"}}, statPrefix="s")
    assert merged_matches((root,), (leaf,)) == (
        match(
            name="r-l",
            uri={"prefix": "/a"},
            method={"exact": "GET"},
            headers={"x": {"exact": "1"}, "y": {"exact": "2"}},
            port=80,
            statPrefix="s",
        ),
    )


def test_each_entry_of_the_delegate_must_fit_somewhere():
    """Entries multiply; one that fits nowhere spoils the rule."""
    roots = (match(uri={"prefix": "/a"}), match(uri={"prefix": "/a/b"}))
    assert len(merged_matches(roots, (match(uri={"exact": "/a/b/c"}),)) or ()) == 2
    assert len(merged_matches(roots, (match(uri={"exact": "/a/c"}),)) or ()) == 1
    assert merged_matches(roots, (match(uri={"exact": "/a/c"}), match(uri={"exact": "/b"}))) is None
