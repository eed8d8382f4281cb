"""Property values as the engine sends them: plain Python, with marks for what is unknown and what is secret.

The engine speaks `google.protobuf.Struct` and encodes two things with sentinels: a value that is not known
yet (at preview), and a value that must stay secret. `decode` turns them into `UNKNOWN` and `Sealed`, `encode`
turns them back. The sentinels are part of the provider protocol (pulumi/pulumi, provider.proto).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import struct_pb2

UNKNOWN_SENTINEL: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
SIGNATURE_KEY: Final = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE: Final = "1b47061264138c4ac30d75fd1eb44270"
OUTPUT_SIGNATURE: Final = "d0e6a833031e9bbcd3f4e8bde6ca49a4"

Path = tuple[str | int, ...]


class _Unknown:
    """A value that only `pulumi up` will know."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()


@dataclass(frozen=True)
class Sealed:
    """A value marked secret; `repr` does not show it."""

    value: Any

    def __repr__(self) -> str:
        return "[secret]"


def decode(value: struct_pb2.Struct | None) -> dict[str, Any]:
    """The properties of a request. Numbers that are whole come back as `int` (the wire has only doubles)."""
    if value is None:
        return {}
    return {key: _decode(field) for key, field in value.fields.items()}


def _decode(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == UNKNOWN_SENTINEL else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [_decode(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        signature = fields[SIGNATURE_KEY].string_value if SIGNATURE_KEY in fields else ""
        if signature == SECRET_SIGNATURE:
            return seal(_decode(fields["value"]))
        if signature == OUTPUT_SIGNATURE:
            inner = _decode(fields["value"]) if "value" in fields else UNKNOWN
            return seal(inner) if "secret" in fields and fields["secret"].bool_value else inner
        return {key: _decode(field) for key, field in fields.items()}
    return None


def seal(value: Any) -> Any:
    """Marks a value secret, once."""
    return value if isinstance(value, Sealed) else Sealed(value)


def encode(properties: Mapping[str, Any]) -> struct_pb2.Struct:
    """The properties of an answer."""
    return struct_pb2.Struct(fields={key: _encode(value) for key, value in properties.items()})


def _encode(value: Any) -> struct_pb2.Value:
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=UNKNOWN_SENTINEL)
    if isinstance(value, Sealed):
        fields = {
            SIGNATURE_KEY: struct_pb2.Value(string_value=SECRET_SIGNATURE),
            "value": _encode(value.value),
        }
        return struct_pb2.Value(struct_value=struct_pb2.Struct(fields=fields))
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=float(value))
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, Mapping):
        return struct_pb2.Value(struct_value=encode(value))
    if isinstance(value, list | tuple):
        items = [_encode(item) for item in value]
        return struct_pb2.Value(list_value=struct_pb2.ListValue(values=items))
    raise TypeError(f"a {type(value).__name__} cannot be sent to the engine")


def unseal(value: Any) -> Any:
    """The same tree without secret marks."""
    if isinstance(value, Sealed):
        return unseal(value.value)
    if isinstance(value, dict):
        return {key: unseal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [unseal(item) for item in value]
    return value


def walk(value: Any, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every node of a tree with its path, outer ones first; looks through secret marks."""
    yield at, value
    inner = value.value if isinstance(value, Sealed) else value
    if isinstance(inner, dict):
        for key, item in inner.items():
            yield from walk(item, (*at, key))
    elif isinstance(inner, list):
        for index, item in enumerate(inner):
            yield from walk(item, (*at, index))


def sealed_paths(value: Any) -> set[Path]:
    """Where the secret marks are."""
    return {path for path, node in walk(value) if isinstance(node, Sealed)}


def unknown_paths(value: Any) -> set[Path]:
    """Where something is not known yet."""
    return {
        path for path, node in walk(value) if node is UNKNOWN or (isinstance(node, Sealed) and node.value is UNKNOWN)
    }


def has_unknown(value: Any) -> bool:
    return bool(unknown_paths(value))


def reseal(value: Any, paths: set[Path], at: Path = ()) -> Any:
    """Puts secret marks back at `paths`; a path that no longer exists is left out."""
    if at in paths:
        return seal(unseal(value))
    if isinstance(value, dict):
        return {key: reseal(item, paths, (*at, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [reseal(item, paths, (*at, index)) for index, item in enumerate(value)]
    return value


def secret_texts(value: Any) -> set[str]:
    """Every text below a secret mark that is long enough (4 characters) to be searched for."""
    found: set[str] = set()
    for _, node in walk(value):
        if isinstance(node, Sealed):
            texts = (leaf for _, leaf in walk(node.value) if isinstance(leaf, str))
            found.update(text for text in texts if len(text) >= 4)
    return found


def seal_echoes(value: Any, secrets: set[str]) -> Any:
    """Marks every text that contains one of `secrets`: what derives from a secret is one."""
    if isinstance(value, str):
        return seal(value) if any(secret in value for secret in secrets) else value
    if isinstance(value, dict):
        return {key: seal_echoes(item, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [seal_echoes(item, secrets) for item in value]
    return value


def redactor(*trees: Any) -> Callable[[str], str]:
    """A function that takes the secrets of `trees` out of a text (longest first, so that none shows in part)."""
    secrets = sorted({text for tree in trees for text in secret_texts(tree)}, key=len, reverse=True)

    def redact(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "[secret]")
        return text

    return redact


def path_text(path: Path) -> str:
    """A property path as the engine writes it: `a.b[0]["c.d"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("_", "").replace("-", "").isalnum():
            text += f".{part}" if text else part
        else:
            quoted = part.replace("\\", "\\\\").replace('"', '\\"')
            text += f'["{quoted}"]'
    return text
