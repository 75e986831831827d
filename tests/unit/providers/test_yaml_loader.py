"""The loader: scalars, refusals with places, aliases, documents."""

import pytest

from pilothouse.providers.yaml_loader import YamlError, parse, parse_full, parse_json, split

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("Off", False),
        ("n", False),
        ("~", None),
        ("", None),
        ("007", 7),
        ("0o17", 15),
        ("017", 15),
        ("08", 8.0),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("2001-01-01", "2001-01-01"),
        ("12:30", "12:30"),
        ("1.2.3", "1.2.3"),
        ("'yes'", "yes"),
        ('"1"', "1"),
        ("!!str 1", "1"),
        ("!!int '3'", 3),
    ],
)
def test_scalars_mean_what_kubernetes_tools_take_them_for(text: str, value: object) -> None:
    """Words and numbers of YAML 1.1, but neither dates nor base-60 numbers."""
    [document] = parse(f"a: {text}\n")
    assert repr(document.data) == repr({"a": value})
    assert repr(parse_full(f"a: {text}\n")) == repr([{"a": value}])


def test_words_and_numbers_as_keys_become_text() -> None:
    """Keys are text in config; a word is written as JSON would write it."""
    [document] = parse("on: 1\n8080: 2\n")
    assert document.data == {"true": 1, "8080": 2}


@pytest.mark.parametrize(
    ("text", "line", "column", "word"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "twice"),
        ("a: [1, 2\nb: 3\n", 2, 2, "valid YAML"),
        ("a: 1\n  b: 2\n", 2, 4, "valid YAML"),
        ("a: !thing 1\n", 1, 4, "tag"),
        ("a: *x\n", 1, 4, "&x"),
        ("---\na: 1\n---\nb: 1\nb: 2\n", 5, 1, "twice"),
        ("a: &a [*a]\n", 1, 8, "itself"),
        ("? [a]\n: 1\n", 1, 3, "plain text"),
    ],
)
def test_what_is_refused_has_a_place(text: str, line: int, column: int, word: str) -> None:
    """An error names line and column of the file and says what is wrong."""
    with pytest.raises(YamlError, match=word) as caught:
        parse(text)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    """Nine levels of ten aliases would be a thousand million values."""
    with pytest.raises(YamlError, match="expand"):
        parse(BOMB)


def test_deep_nesting_is_refused() -> None:
    """A hundred thousand brackets are an error, not a crash."""
    with pytest.raises(YamlError, match=r"deep|nest"):
        parse("[" * 100_000)
    with pytest.raises(YamlError, match="deep"):
        parse("- " * 5_000 + "a")


def test_merges_and_anchors_are_resolved_into_separate_values() -> None:
    """A key of the map itself wins over a merged one, and an earlier merge over a later."""
    text = "x: &x {a: 1, b: [2]}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 5\n"
    [document] = parse(text)
    assert document.data["z"] == {"a": 5, "b": [2], "c": 4}
    assert document.data["z"]["b"] is not document.data["x"]["b"]


def test_empty_collections_on_equal_lines_are_separate_values() -> None:
    """Remembered lines must not make two fields share a list."""
    [document] = parse("a:\n  x: []\nb:\n  x: []\n")
    assert document.data["a"]["x"] is not document.data["b"]["x"]


def test_documents_know_their_first_line() -> None:
    """Markers, empty documents and comments count as lines."""
    text = "# head\na: 1\n---\n# only a comment\n---\n\nb: 2\n...\nc: 3\n"
    assert [(each.data, each.line) for each in parse(text)] == [
        ({"a": 1}, 1),
        ({"b": 2}, 5),
        ({"c": 3}, 9),
    ]


def test_directives_windows_line_ends_and_byte_order_marks_are_read() -> None:
    """What other systems' editors leave behind is not an error."""
    assert [each.data for each in parse("%YAML 1.1\n---\na: 1\n")] == [{"a": 1}]
    assert [each.data for each in parse(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")] == [{"a": 1, "b": 2}]


def test_bytes_that_are_no_text_are_refused_with_the_line() -> None:
    """A binary file under a YAML name is an error on the line where the text ends."""
    with pytest.raises(YamlError, match="UTF-8") as caught:
        parse(b"a: 1\nb: \xff\n")
    assert caught.value.line == 2


def test_a_json_error_has_line_and_column() -> None:
    """JSON positions come as byte offsets and are turned into lines."""
    with pytest.raises(YamlError) as caught:
        parse_json('{\n  "ä": 1,\n  "b": }\n')
    assert caught.value.line == 3


def test_a_file_is_cut_without_parsing() -> None:
    """A broken document does not keep the others from being cut out."""
    assert [chunk.line for chunk in split("a: [\n---\nb: 1\n")] == [1, 2]
