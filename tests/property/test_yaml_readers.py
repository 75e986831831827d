"""The two YAML readers agree, and numbers and words mean what Kubernetes tools take them for."""

import re
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.providers.yaml_loader import (
    Chunk,
    YamlError,
    line_of,
    parse,
    parse_full,
    split,
    to_text,
)
from pilothouse.providers.yaml_plain import read_plain
from pilothouse.providers.yaml_scalars import resolve

SCALARS = [
    "a", "a b", "http://x:80/y", "10.0.0.1", "10.0.0.1:80", "yes", "no", "on", "Off", "y", "N",
    "true", "~", "null", "1", "-1", "+1", "007", "08", "0o7", "0x1F", "0b11", "1_000", "1.5",
    "1e3", ".5", ".inf", "2001-01-01", "12:30:45", '"q: # x"', "'s ''", "''", '""', "'a'", "[]",
    "{}", "a#b", "a #c", "-a", "- a", "a: b", "a:", "*x", "&x y", "!t z", "| ", ">", "@a", "%a",
    "`", "[a, b]", "{a: b}", "a,b", "a]", "?", "? a", ":", "-", "--- ", "...", "\\n", "é", "\t",
    "<<", "=", "a\tb", '"\\n"', '"a" b', "a 'b'", "$(X)", "a  b", "k8s.io/x", "1.2.3", "0", "00",
]  # fmt: skip
KEYS = ["a", "b", "app.kubernetes.io/name", '"q"', "'s'", "on", "y", "1", "<<", "a b", "*", "true"]


def lines() -> st.SearchStrategy[str]:
    """Lines that look like YAML, some of them nearly."""
    value = st.one_of(st.just(""), st.sampled_from(SCALARS).map(lambda text: " " + text))
    keyed = st.tuples(st.sampled_from(KEYS), value).map(lambda pair: f"{pair[0]}:{pair[1]}")
    body = st.one_of(keyed, st.sampled_from(SCALARS), st.sampled_from(["", "# c", "#"]))
    indent = st.integers(0, 6).map(lambda width: " " * width)
    dashes = st.sampled_from(["", "", "- ", "-   ", "- - ", "-"])
    tail = st.sampled_from(["", "", " ", " # c", "  "])
    return st.tuples(indent, dashes, body, tail).map("".join)


@settings(max_examples=1500)
@given(st.lists(lines(), max_size=9))
def test_what_the_plain_reader_reads_the_full_reader_reads_alike(given_lines: list[str]) -> None:
    """Whatever the fast path returns is exactly what libyaml's events give."""
    text = "\n".join(given_lines)
    for chunk in split(to_text(text)):
        done, data = read_plain(chunk.text, {})
        if done:
            full = parse_full(chunk.text)
            assert repr([data] if data is not None else []) == repr(full)


def data() -> st.SearchStrategy[Any]:
    """Data as config holds it."""
    texts = st.one_of(st.sampled_from(SCALARS), st.text(max_size=8))
    leaves = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), texts)
    # Keys begin with a letter of no word: how words as keys are read has a test of its own.
    names = st.text(max_size=6).map(lambda text: "k" + text)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)
        ),
        max_leaves=12,
    )


@settings(max_examples=400)
@given(st.dictionaries(st.sampled_from(["a", "b", "c"]), data(), min_size=1), st.booleans())
def test_what_a_yaml_writer_writes_is_read_back(document: dict[str, Any], flow: bool) -> None:
    """Documents written by PyYAML come back as they were, whichever reader takes them."""
    text = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True)
    expected = yaml.load(text, Loader=_KubernetesLoader)
    assert repr([each.data for each in parse(text)]) == repr([expected])
    assert repr(parse_full(text)) == repr([expected])


class _KubernetesLoader(yaml.SafeLoader):
    """PyYAML's own constructor with our scalar rules: the reference for structure and quoting."""


def _construct(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    return resolve(node.value)


_KubernetesLoader.yaml_implicit_resolvers = {}
_KubernetesLoader.add_implicit_resolver("!plain", re.compile(r"(?s).*"), None)
_KubernetesLoader.add_constructor("!plain", _construct)


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_place(text: str) -> None:
    """No text brings anything but data or a YamlError with a line."""
    line = 1
    try:
        parse(text)
    except YamlError as error:
        line = error.line
    assert line >= 1


@settings(max_examples=200)
@given(st.lists(st.sampled_from(["a: 1", "b:\n- x", "---", "--- # c", "...", "# c", ""])))
def test_documents_are_cut_where_libyaml_cuts_them(pieces: list[str]) -> None:
    """Cutting a file by its markers gives the documents that libyaml finds in it."""
    text = "".join(piece + "\n" for piece in pieces)
    try:
        whole = [each for each in yaml.safe_load_all(text) if each is not None]
        found = [each.data for each in parse(text)]
    except (yaml.YAMLError, YamlError):
        return
    assert found == whole


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_line_is_found_by_its_path(before: int, blank: int) -> None:
    """`line_of` counts comments, blank lines and the document's own first line."""
    text = "# c\n" * before + "spec:\n" + "\n" * blank + "  http:\n  - a: 1\n  - b: 2\n"
    chunk = Chunk(text, 11)
    assert line_of(chunk, "spec.http[1].b") == 11 + before + 1 + blank + 2
    assert line_of(chunk, "spec.http[1].absent") == 11 + before + 1 + blank + 2
    assert line_of(chunk, "") == 11
