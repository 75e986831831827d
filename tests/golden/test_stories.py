"""
What each proxy of each story is served, compared with the reviewed files beside it.

`PILOTHOUSE_UPDATE_GOLDENS=1` (or `make goldens`) rewrites the files instead; review the difference.
"""

import os
import shutil
from collections.abc import Iterator

import pytest
import story

UPDATE = os.environ.get("PILOTHOUSE_UPDATE_GOLDENS") == "1"


def expected_files(name: str) -> Iterator[tuple[str, str]]:
    """Yield each file a story should have, and its content as translated now."""
    told = story.load(name)
    served = {proxy: told.served(proxy) for proxy in told.proxies}
    for path, entries in story.shown(name, served):
        yield path, story.dump(entries)
    yield "findings.yaml", story.dump(story.described(told.findings()))


@pytest.mark.parametrize("name", story.names())
def test_the_story_is_told_as_expected(name: str) -> None:
    folder = story.GOLDEN / name / "expected"
    made = dict(expected_files(name))
    if UPDATE:
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in made.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    there = {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")}
    assert made.keys() == there
    for path, text in made.items():
        assert text == (folder / path).read_text(), path


@pytest.mark.parametrize("name", story.names())
def test_a_second_telling_gives_the_same_bytes(name: str) -> None:
    """Nothing depends on the order of a set or on what was asked before."""
    first, second = story.load(name), story.load(name)
    everyone = list(first.proxies)
    once = {proxy: first.served(proxy) for proxy in everyone}
    again = {proxy: second.served(proxy) for proxy in reversed(everyone)}
    assert once == again


@pytest.mark.parametrize("name", story.names())
def test_every_name_is_unique_within_its_type(name: str) -> None:
    told = story.load(name)
    for proxy in told.proxies:
        for kind, resources in told.served(proxy).items():
            listed = [each.name for each in resources]
            assert len(listed) == len(set(listed)), (proxy, kind)
