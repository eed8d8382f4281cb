"""Values of properties as they may be shown: one line, secrets hidden, unknown values named, long ones cut."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from lorafleet.errors import looks_secret, looks_secret_name

SECRET = "[secret]"
UNKNOWN = "(known after up)"
HIDDEN = "[hidden: it may be a secret]"
LONGEST = 160

# What marks a value in the engine's JSON: {SIGNATURE: kind, …} (sdk/go/common/resource/sig/sig.go).
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_KINDS = {
    "1b47061264138c4ac30d75fd1eb44270": SECRET,
    "c44067f5952c0a294b673a41bacd8c17": "(a file)",
    "0def7320c3a5731c473e5ecbe6d01bc7": "(an archive)",
    "5cf8f73096256a8f31e491e813e4eb8e": "(a resource)",
    "d0e6a833031e9bbcd3f4e8bde6ca49a4": UNKNOWN,
}
# What stands for values that are not known before the update (sdk/go/common/resource/plugin/rpc.go).
UNKNOWN_MARKS = frozenset(
    {
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
        "04da6b54-80e4-46f7-96ec-b56ff0331ba9",
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
        "030794c1-ac77-496b-92df-f27374a8bd58",
        "e48ece36-62e2-4504-bad9-02848725956a",
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
    }
)

Path = tuple[str | int, ...]
_PATH_PART = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|\.?([^.\[\]"]+)')


class _Missing:
    """There is no such property."""


MISSING = _Missing()


class _Plain(str):
    """A word of this module in the place of a value, shown without quotes."""


def parse_path(text: str) -> Path:
    """`a.b[0]["key with.dots"]` as its parts, as the engine writes property paths."""
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        found = _PATH_PART.match(text, at)
        if found is None:
            return (text,)
        quoted, index, plain = found.groups()
        if quoted is not None:
            parts.append(quoted.replace('\\"', '"'))
        else:
            parts.append(int(index) if index is not None else plain)
        at = found.end()
    return tuple(parts)


def lookup(properties: Mapping[str, Any] | None, path: Path) -> Any:
    """The value at a path, or MISSING. Below a secret it is that secret."""
    value: Any = properties or {}
    for part in path:
        if is_secret(value):
            return value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not in_list and not (isinstance(value, Mapping) and part in value):
            return MISSING
        value = value[part]
    return value


def is_secret(value: Any) -> bool:
    """Whether the engine marked this value secret."""
    return value == SECRET or (isinstance(value, Mapping) and _KINDS.get(str(value.get(_SIGNATURE))) == SECRET)


def secret_paths(value: Any, at: Path = ()) -> set[Path]:
    """Where a value holds what the engine marked secret."""
    if is_secret(value):
        return {at}
    if isinstance(value, Mapping):
        return {path for key, each in value.items() for path in secret_paths(each, (*at, key))}
    if isinstance(value, list):
        return {path for index, each in enumerate(value) for path in secret_paths(each, (*at, index))}
    return set()


def masked(value: Any, at: Path, secrets: set[Path]) -> Any:
    """The value without anything secret: what was marked on any side, and what is named or looks like a secret.

    Args:
        at: where it stands in its resource.
        secrets: paths of secrets in the resource; a value that was one before, or will be one, is one.
    """
    if any(at[: len(path)] == path for path in secrets) or is_secret(value):
        return _Plain(SECRET)
    if isinstance(value, Mapping):
        if _SIGNATURE in value:
            return _Plain(_KINDS.get(str(value[_SIGNATURE]), "(not shown)"))
        return {key: masked(each, (*at, key), secrets) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each, (*at, index), secrets) for index, each in enumerate(value)]
    if isinstance(value, str):
        if value in UNKNOWN_MARKS:
            return _Plain(UNKNOWN)
        name = next((part for part in reversed(at) if isinstance(part, str)), "")
        if value and (looks_secret_name(name) or looks_secret(value)):
            return _Plain(HIDDEN)
    return value


def shown(value: Any) -> str:
    """A masked value on one line, whole."""
    if isinstance(value, _Plain):
        return str(value)
    return visible(json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(", ", ": "), default=str))


def shown_pair(old: Any, new: Any) -> tuple[str, str]:
    """Two masked values, both cut so that what differs is seen."""
    before, after = shown(old), shown(new)
    same = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    start = same - LONGEST // 4 if same > LONGEST // 2 and max(len(before), len(after)) > LONGEST else 0
    return cut(before, start), cut(after, start)


def cut(text: str, start: int = 0, longest: int = LONGEST) -> str:
    """At most `longest` characters from `start` on, with what was left out said."""
    rest = text[start:]
    head = "…" if start and rest else ""
    if len(rest) <= longest:
        return head + rest
    return f"{head}{rest[:longest]}… ({len(text)} characters)"


def visible(text: str) -> str:
    """One line in which every character can be seen: line ends, marks of direction and the like are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def redacted(text: str) -> str:
    """A message without the words that look like keys."""
    return re.sub(r"[^\s\"'`,;()<>\[\]{}]+", lambda word: HIDDEN if _is_key(word.group()) else word.group(), text)


def _is_key(word: str) -> bool:
    # Paths and URNs have long words in them that are no keys; a key stands alone or after `=` or `:`.
    return any(looks_secret(part) for part in re.split(r"[/=:$]+", word) if part) or (
        "://" in word and looks_secret(word)
    )
