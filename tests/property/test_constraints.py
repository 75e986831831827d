"""The compiled rules find whatever a plain reading of the same rules finds."""

from functools import cache
from typing import Any

import envoy_constraints
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from story import load

from pilothouse._pb._pool import message_class
from pilothouse.translators.envoy.constraints import violation


@cache
def served() -> tuple[Message, ...]:
    """Every resource of a few stories."""
    found = []
    for name in ("canary_weights", "cors", "destination_policies", "tls_routes_sni", "faults"):
        story = load(name)
        for proxy in story.proxies:
            for resources in story.served(proxy).values():
                for each in resources:
                    made = message_class(each.type_url.rpartition("/")[2])
                    found.append(made.FromString(each.data))
    return tuple(found)


def parts(message: Message) -> list[tuple[Message, FieldDescriptor]]:
    """Return each set field of a message and all within it; what is packed is not entered."""
    found: list[tuple[Message, FieldDescriptor]] = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type != FieldDescriptor.TYPE_MESSAGE or field.message_type.full_name in (
            "google.protobuf.Any",
            "envoy.config.core.v3.Metadata",
        ):
            continue
        if field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            found.extend(parts(each))
    return found


def spoil(message: Message, field: FieldDescriptor, number: int) -> None:
    """Clear a field, or give it another value of its type."""
    if number == 0 or field.is_repeated or field.message_type is not None:
        message.ClearField(field.name)
        return
    value: Any
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        value = "a\n" if field.type == FieldDescriptor.TYPE_STRING else b""
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        value = not getattr(message, field.name)
    else:
        value = number
    setattr(message, field.name, value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_escapes_that_a_plain_reading_finds(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(served()))
    assert violation(original) is None
    message = type(original)()
    message.CopyFrom(original)
    part, field = data.draw(st.sampled_from(parts(message)))
    spoil(part, field, data.draw(st.sampled_from([0, 1, 2**31 - 1])))
    plain = [
        each
        for each in envoy_constraints.violations(message)
        # It takes every text for a header.
        if "control character" not in each
    ]
    if plain:
        assert violation(message) is not None, plain
