"""Reading the error texts of Envoy 1.40."""

from pilothouse.xds.rejections import MAX_ERROR_LENGTH, blame, truncated

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
