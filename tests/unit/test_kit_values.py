"""Property values: what the engine marks unknown or secret must survive both ways, at any depth."""

import pytest
from google.protobuf import struct_pb2

from providers.kit import values
from providers.kit.values import UNKNOWN, Sealed


def test_a_tree_comes_back_as_it_was() -> None:
    tree = {
        "text": "이름",
        "whole": 3,
        "part": 0.5,
        "truth": True,
        "nothing": None,
        "list": [1, {"deep": UNKNOWN}],
        "secret": Sealed({"inner": ["a", "b"]}),
        "later": UNKNOWN,
    }
    assert values.decode(values.encode(tree)) == tree


def test_whole_numbers_are_int_and_not_bool() -> None:
    decoded = values.decode(values.encode({"n": 8101, "t": True}))
    assert type(decoded["n"]) is int
    assert decoded["t"] is True


def test_output_values_of_the_protocol() -> None:
    def output(**fields: struct_pb2.Value) -> struct_pb2.Value:
        signature = struct_pb2.Value(string_value=values.OUTPUT_SIGNATURE)
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields={values.SIGNATURE_KEY: signature, **fields}))

    text, yes = struct_pb2.Value(string_value="x"), struct_pb2.Value(bool_value=True)
    struct = struct_pb2.Struct(
        fields={"known": output(value=text), "unknown": output(), "secret": output(value=text, secret=yes)}
    )
    assert values.decode(struct) == {"known": "x", "unknown": UNKNOWN, "secret": Sealed("x")}


def test_a_secret_never_shows_in_repr() -> None:
    assert "hunter2" not in repr({"a": [Sealed("hunter2")]})


def test_unknown_inside_a_secret_is_found() -> None:
    assert values.unknown_paths({"a": Sealed(UNKNOWN), "b": [0, UNKNOWN]}) == {("a",), ("b", 1)}


def test_marks_are_put_back_where_they_were() -> None:
    tree = {"a": {"b": Sealed("x"), "c": "y"}, "d": [Sealed("z")]}
    assert values.reseal(values.unseal(tree), values.sealed_paths(tree)) == tree


def test_what_contains_a_secret_becomes_one() -> None:
    marked = values.seal_echoes({"url": "http://h/?key=s3cr3t", "list": ["s3cr3t!", "plain"]}, {"s3cr3t"})
    assert marked == {"url": Sealed("http://h/?key=s3cr3t"), "list": [Sealed("s3cr3t!"), "plain"]}


def test_a_redactor_takes_the_longest_secret_first() -> None:
    redact = values.redactor({"a": Sealed("abcd"), "b": Sealed("abcdefgh")})
    assert redact("x abcdefgh y abcd") == "x [secret] y [secret]"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a", "b", 0, "c"), "a.b[0].c"),
        (("a", "x.y"), 'a["x.y"]'),
        (("a", 'q"q'), 'a["q\\"q"]'),
        (("easy-contract",), "easy-contract"),
        ((), ""),
    ],
)
def test_paths_read_as_the_engine_writes_them(path: values.Path, text: str) -> None:
    assert values.path_text(path) == text


def test_what_cannot_be_sent_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="set"):
        values.encode({"a": {1, 2}})
