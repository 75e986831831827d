"""Reading the error texts of Envoy 1.40."""

from pilothouse.xds.rejections import (
    MAX_ERROR_LENGTH,
    MAX_LISTED_LENGTH,
    MAX_SEARCHED_LENGTH,
    blame,
    truncated,
)

NAMES = ("outbound|80||a.b", "outbound|80||a.b.c", "0.0.0.0_80", "80")


def test_clusters_and_listeners_are_listed_one_by_one():
    """cds_api_impl.cc, lds_api.cc: the rest of the message was applied."""
    text = "Error adding/updating cluster(s) outbound|80||a.b: bad, outbound|80||a.b.c: worse"
    assert blame(text, NAMES).names == {"outbound|80||a.b", "outbound|80||a.b.c"}
    assert blame(text, NAMES).is_partial
    text = "Error adding/updating listener(s) 0.0.0.0_80: cannot bind '0.0.0.0:80'\n80: no\n"
    assert blame(text, NAMES).names == {"0.0.0.0_80", "80"}


def test_a_name_is_not_found_inside_another():
    """A dotted or piped name continues; a sentence ends."""
    text = "Error adding/updating cluster(s) outbound|80||a.b.c: bad"
    assert blame(text, NAMES).names == {"outbound|80||a.b.c"}
    assert blame("Duplicate domain in route outbound|80||a.b.c", NAMES).names == {
        "outbound|80||a.b.c"
    }
    assert blame("Duplicate domain in route 80.", ("80", "8080")).names == {"80"}


def test_whole_messages_are_refused_for_one_resource():
    """A failed constraint or a bad route table stops the message where it is found."""
    text = "Only unique values for domains are permitted. Duplicate entry of domain x in route 80"
    verdict = blame(text, ("80", "9080"))
    assert (verdict.names, verdict.is_partial) == ({"80"}, False)
    text = 'Proto constraint validation failed (ClusterValidationError.Name): name: "a" alt: "b"'
    assert blame(text, ("a", "z")).names == {"a"}
    assert blame(text, ("a", "b")).names == frozenset(), "two candidates are no proof"
    assert blame("something else", NAMES).names == frozenset()


def test_a_list_that_names_nobody_proves_nothing_was_applied():
    verdict = blame("Error adding/updating listener(s) elsewhere: bad", NAMES)
    assert (verdict.names, verdict.is_partial) == (frozenset(), False)


def test_errors_are_kept_short():
    assert truncated("x") == "x"
    assert len(truncated("x" * 5_000)) == MAX_ERROR_LENGTH


def test_of_endless_errors_the_beginning_is_read():
    """A proxy may write 16 MB; with 10,000 names in it that must not cost minutes of the server."""
    verdict = blame("no good: 80" + "x" * MAX_SEARCHED_LENGTH * 50, ("80x", "9080"))
    assert verdict.names == frozenset()
    assert blame("no good: 80 " + "x" * MAX_SEARCHED_LENGTH, ("80",)).names == {"80"}
    assert blame(" " * MAX_SEARCHED_LENGTH + "no good: 80", ("80",)).names == frozenset()


def test_of_an_endless_list_the_rest_counts_as_not_applied():
    """Else clusters whose refusal was not read would count as accepted."""
    text = "Error adding/updating cluster(s) outbound|80||a.b: bad, " + "x: y, " * MAX_LISTED_LENGTH
    verdict = blame(text + "outbound|80||a.b.c: worse", NAMES)
    assert (verdict.names, verdict.is_partial) == ({"outbound|80||a.b"}, False)
