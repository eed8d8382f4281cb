"""Writing one scalar of a release as YAML: plain where every reader takes it for a text, else in quotes."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/@:-]*[A-Za-z0-9])?")
# What some reader (YAML 1.1 or 1.2) takes for a truth value, nothing, a number, a time or a date.
_NOT_A_TEXT = re.compile(
    r"y|n|yes|no|on|off|true|false|null|nan|inf"
    r"|[0-9][0-9_]*(?:\.[0-9_]*)?(?:e[-+]?[0-9]+)?|0x[0-9a-f_]+|0o?[0-7_]+|0b[01_]+"
    r"|[0-9]+(?::[0-9]+)+(?:\.[0-9]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[t ].*)?",
    re.IGNORECASE,
)


def scalar(value: object, style: str | None) -> str:
    """`value` in the style of what stands there or beside it (`'`, `"` or None for plain)."""
    if isinstance(value, int):
        return str(value)
    text = str(value)
    if style == "'":
        return "'" + text.replace("'", "''") + "'"
    if style is None and _PLAIN.fullmatch(text) and not _NOT_A_TEXT.fullmatch(text):
        return text
    return json.dumps(text, ensure_ascii=False)
