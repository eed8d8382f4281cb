"""Reads `stacks/Pulumi.<environment>.yaml` and remembers the line of every key.

Values are read as Pulumi's own reader takes them (`on` and `12:30` are texts), not as PyYAML would by default
(YAML 1.1: true and 750), so that this command and a preview see the same declaration. PyYAML is imported only
when a file is read: a preview without mistakes gets its declaration from Pulumi and needs no YAML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorafleet.errors import LorafleetError, shown_key

if TYPE_CHECKING:
    import yaml

FieldPath = tuple[str | int, ...]

_MAX_BYTES = 1 << 20
_MAX_VALUES = 20_000
_MAX_DIGITS = 400
_STANDARD = "tag:yaml.org,2002:"
_SCALARS: tuple[tuple[str, str], ...] = (
    ("null", r"(?:~|null|Null|NULL|)\Z"),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)\Z"),
    ("int", r"[-+]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]*|[1-9][0-9_]*)\Z"),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z",
    ),
)


@dataclass(frozen=True, slots=True)
class StackFile:
    """The content of one file, with the 1-based line of each key and list item."""

    value: Any
    lines: dict[FieldPath, int] = field(default_factory=dict)

    def line(self, path: FieldPath) -> int | None:
        """The line of the value at `path`, or of the nearest thing around it that stands in the file."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read(path: Path, shown_path: str) -> StackFile:
    """Read a YAML file.

    Args:
        path: the file.
        shown_path: how errors name it.

    Raises:
        LorafleetError: the file can't be read, is not YAML, or has a key twice.
    """
    return parse(_text(path, shown_path), shown_path)


def parse(text: str, shown_path: str) -> StackFile:
    """The same for a text that was read already. Raises LorafleetError."""
    import yaml

    try:
        node = yaml.compose(text, Loader=_loader())
        if node is None:
            return StackFile({}, {(): 1})
        reader = _Reader(shown_path)
        value = reader.build(node, ())
    except yaml.YAMLError as error:
        raise _syntax_error(error, text, shown_path) from None
    except RecursionError:
        raise LorafleetError(
            "the file is nested too deeply",
            where=f"{shown_path}:1",
            allowed="a declaration as in stacks/Pulumi.local.yaml",
            next_action="Take away the needless brackets or the alias that contains itself.",
        ) from None
    return StackFile(value, reader.lines)


def _loader() -> type[yaml.SafeLoader]:
    """PyYAML's parser with YAML 1.2's rules for what a plain word means."""
    import yaml

    class Loader(yaml.SafeLoader):
        def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
            if kind is yaml.ScalarNode:
                plain = implicit[0]
                name = next((name for name, pattern in _SCALARS if re.match(pattern, value)), "str") if plain else "str"
                return _STANDARD + name
            return _STANDARD + ("map" if kind is yaml.MappingNode else "seq")

    return Loader


def _text(path: Path, shown_path: str) -> str:
    try:
        if not path.is_file():
            raise LorafleetError(
                "there is no such file",
                where=shown_path,
                allowed="a YAML file of the stack's configuration",
                next_action="Look at the name; stacks/Pulumi.local.yaml is one to copy.",
            )
        raw = path.read_bytes()
    except OSError as error:
        raise LorafleetError(
            f"the file can't be read: {error.strerror}",
            where=shown_path,
            allowed="a readable file",
            next_action="Look at the file and at its rights.",
        ) from None
    if len(raw) > _MAX_BYTES:
        raise LorafleetError(
            f"the file has {len(raw)} bytes",
            where=shown_path,
            allowed=f"at most {_MAX_BYTES} bytes",
            next_action="Keep only the stack's configuration in it.",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise LorafleetError(
            "the file is not UTF-8 text",
            where=f"{shown_path}:{line}",
            allowed="UTF-8 text",
            next_action="Save the file in UTF-8.",
        ) from None


def _syntax_error(error: yaml.YAMLError, text: str, shown_path: str) -> LorafleetError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else text[: getattr(error, "position", 0)].count("\n") + 1
    what = getattr(error, "problem", None) or "a character that YAML does not allow"
    # The parser quotes pieces of the file; such a piece can be a part of a secret.
    what = re.sub(r"'[^']{2,}'", "(a name that is not shown)", what)
    return LorafleetError(
        f"this is not valid YAML: {what}",
        where=f"{shown_path}:{line}",
        allowed="YAML: `key: value`, indented with spaces",
        next_action="Look at this line and the one above: is a colon, quote, bracket or space missing?",
    )


class _Reader:
    """Builds plain values out of YAML nodes and notes the lines."""

    def __init__(self, shown_path: str) -> None:
        self.lines: dict[FieldPath, int] = {}
        self._shown_path = shown_path
        self._values = 0

    def build(self, node: yaml.Node, path: FieldPath) -> Any:
        import yaml

        self.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if self._values > _MAX_VALUES:
            raise self._refuse(node, path, "the file holds too many values", f"at most {_MAX_VALUES} values")
        if isinstance(node, yaml.MappingNode):
            self._check_tag(node, path, "map")
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, path, "seq")
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, Any]:
        import yaml

        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refuse(key_node, path, "a key is not a plain text", "keys that are texts")
            key = key_node.value
            if key == "<<" and key_node.style is None:
                raise self._refuse(key_node, path, "merge keys (<<) are not read here", "keys written out in full")
            if key in result:
                first = self.lines[(*path, key)]
                raise self._refuse(
                    key_node,
                    (*path, key),
                    f"the key {shown_key(key)} stands here twice (first on line {first})",
                    "each key once",
                )
            self.lines[(*path, key)] = key_node.start_mark.line + 1
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.Node, path: FieldPath) -> Any:
        text: str = node.value
        kind = node.tag.removeprefix(_STANDARD)
        pattern = dict(_SCALARS).get(kind)
        if pattern is not None and not re.match(pattern, text):
            raise self._refuse(node, path, "the value does not fit its tag (!!)", "plain YAML without tags")
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int" and len(text) <= _MAX_DIGITS:
            return _whole(text)
        if kind in ("int", "float"):
            return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        self._check_tag(node, path, "str")
        return text

    def _check_tag(self, node: yaml.Node, path: FieldPath, kind: str) -> None:
        if node.tag != _STANDARD + kind:
            raise self._refuse(node, path, "tags (!...) are not read here", "plain YAML without tags")

    def _refuse(self, node: yaml.Node, path: FieldPath, what: str, allowed: str) -> LorafleetError:
        return LorafleetError(
            what,
            where=f"{self._shown_path}:{node.start_mark.line + 1}",
            field=dotted(path),
            allowed=allowed,
            next_action="Mend this line.",
        )


def _whole(text: str) -> int:
    """A whole number as gopkg.in/yaml.v3 (resolve.go), Pulumi's reader, takes it: 017 is octal, 1_000 is 1000."""
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-").replace("_", "").lower()
    if re.fullmatch(r"0[0-7]+", digits):
        digits = f"0o{digits[1:]}"
    return sign * int(digits, 0)


def dotted(path: FieldPath) -> str:
    """`("config", "serving:fleet", "router", "port")` as people name it: `router.port`."""
    inner = path[2:] if path[:1] == ("config",) and len(path) > 2 else path
    text = ""
    for part in inner:
        text += f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" if text else shown_key(part)
    return text
