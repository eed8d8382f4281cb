"""The small types that declarations are made of. Each checks itself and says what is allowed; none converts.

They are pydantic annotations: `port: Annotated[int, Whole(1024, 65535)]`. Platforms use them for their own
declarations (`providers/<kind>/spec.py`), so limits stand there as data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lorafleet.errors import Problem, listed, nearest

ERROR_TYPE = "lorafleet"


class Model(BaseModel):
    """Base of all that is declared: frozen, no unknown keys, camelCase in files, snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        arbitrary_types_allowed=False,
        defer_build=True,  # a preview uses a few of the models that it imports; the others need not be compiled
    )


def refuse(what: str, *, allowed: str, next_action: str) -> PydanticCustomError:
    """The error that a check of a declared value raises."""
    # The text goes in as context and not as the template, because a template would read braces in it.
    context: dict[str, Any] = {"what": what, "allowed": allowed, "next_action": next_action}
    return PydanticCustomError(ERROR_TYPE, "{what}", context)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`, both included. A truth value or a text of digits is not one."""

    low: int
    high: int
    unit: str = ""

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}{f' ({self.unit})' if self.unit else ''}"

    def check(self, value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool):
            if self.low <= value <= self.high:
                return value
            side = "small" if value < self.low else "large"
            raise refuse(f"the number is too {side}", allowed=self.allowed, next_action=f"Give {self.allowed}.")
        hint = f"Give {self.allowed}."
        if isinstance(value, str) and value.strip().lstrip("+-").isdigit():
            hint = "Take away the quotes: this must be a number and not a text."
        raise refuse("a whole number is needed here", allowed=self.allowed, next_action=hint)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True, slots=True)
class Text:
    """A text that a pattern matches as a whole. `what` says in words what the pattern allows."""

    pattern: str
    what: str
    next_action: str = ""

    @property
    def allowed(self) -> str:
        return self.what

    def check(self, value: object) -> str:
        hint = self.next_action or f"Write {self.what}."
        if not isinstance(value, str):
            if isinstance(value, int | float) and not isinstance(value, bool):
                hint = "Put the value in quotes: without them it is read as a number and not as a text."
            raise refuse("a text is needed here", allowed=self.what, next_action=hint)
        if not re.fullmatch(self.pattern, value):
            what = "the text is empty" if not value.strip() else "the text does not have the form that is needed"
            raise refuse(what, allowed=self.what, next_action=hint)
        return value

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few values, compared without conversion (8 is not "8", and true is not 1)."""

    values: tuple[str | int, ...]

    @property
    def allowed(self) -> str:
        return listed(self.values)

    def check(self, value: object) -> str | int:
        for valid in self.values:
            if type(value) is type(valid) and value == valid:
                return valid
        texts = [valid for valid in self.values if isinstance(valid, str)]
        near = nearest(value, texts) if isinstance(value, str) else None
        hint = f'Did you mean "{near}"?' if near else f"Write {self.allowed}."
        if isinstance(value, str) and not texts and value.strip().isdigit():
            hint = "Take away the quotes: this must be a number and not a text."
        raise refuse("this value is not one of those that are valid here", allowed=self.allowed, next_action=hint)

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)


def parsed_by(parse: Any) -> CoreSchema:
    """A core schema for a type that is made from a value by `parse`, which raises `Problem`."""

    def check(value: object) -> object:
        try:
            return parse(value)
        except Problem as problem:
            raise refuse(problem.what, allowed=problem.allowed, next_action=problem.next_action) from None

    return core_schema.no_info_plain_validator_function(
        check, serialization=core_schema.plain_serializer_function_ser_schema(str)
    )


_LABEL = "lower-case letters, digits and inner hyphens, at most {} characters, as in easycontract"
LABEL_PATTERN = r"[a-z0-9](?:[a-z0-9-]{0,%d}[a-z0-9])?"

# One label of a DNS name, because adapters' and targets' names become parts of resource names, metrics and
# URLs.
AdapterName = Annotated[str, Text(LABEL_PATTERN % 61, _LABEL.format(63))]
TargetName = Annotated[str, Text(LABEL_PATTERN % 38, _LABEL.format(40))]
ModelName = Annotated[
    str,
    Text(
        r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?",
        "lower-case letters, digits and inner dots or hyphens, at most 63 characters, as in exaone-3.5-2.4b",
    ),
]
Digest = Annotated[
    str,
    Text(
        r"sha256:[0-9a-f]{64}",
        "sha256: and 64 lower-case hexadecimal digits",
        "Paste all of what `lorafleet adapter list NAME` shows, or `lorafleet digest FOLDER` for a folder.",
    ),
]
Revision = Annotated[
    str,
    Text(
        r"[0-9a-f]{40}",
        "the 40 lower-case hexadecimal digits of a commit; a branch or a tag can move and is not accepted",
        'Copy the full commit from the model\'s page ("Files and versions", "History").',
    ),
]
# A tag can be moved to another image; a digest can't.
Image = Annotated[
    str,
    Text(
        r"[a-z0-9][a-z0-9.-]*(?::[0-9]+)?(?:/[a-z0-9._-]+)+@sha256:[0-9a-f]{64}",
        "registry/name@sha256: and 64 lower-case hexadecimal digits, without a tag",
        "Look the digest up where the image was pushed.",
    ),
]
# Where an environment keeps adapters, manifests and what its servers report.
StoreUrl = Annotated[
    str,
    Text(
        r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](?:/(?!\.{1,2}(?:/|$))[^/\s*?\[\]#\x00-\x1f\x7f]+)*"
        r"|file://(?!~)[^\x00-\x1f\x7f\ud800-\udfff]{1,400}(?<!/)",
        "gs://bucket, gs://bucket/folder or file://folder (from the project's root, or absolute), without / at the end",
        "Write gs://BUCKET with the bucket of the stack `shared`, or file://.lorafleet/store for this machine alone.",
    ),
]
# Ports below 1024 need rights that a server of this project never has.
Port = Annotated[int, Whole(1024, 65535, "a TCP port")]
Sentence = Annotated[str, Text(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,200}", "a text of 1 to 200 characters on one line")]
