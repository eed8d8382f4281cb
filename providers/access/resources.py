"""`lorafleet:access:ApiKey`: a key that exists in the state alone, encrypted."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from providers import kit

# 32 random bytes: a key that cannot be guessed, so its plain SHA-256 tells nothing about it.
_RANDOM_BYTES = 32


class KeyInputs(kit.Inputs):
    """value: a key of your own (at least 20 characters); one is made without it. rotation: change it for a new key."""

    value: kit.Secret[str] | None = None
    rotation: kit.Replaced[str] = ""


class KeyOutputs(kit.Outputs):
    """key: the key; sha256: hex digest of it, which is all that a server needs to check it."""

    key: kit.Secret[str]
    sha256: kit.Secret[str]


class ApiKey(kit.Resource[KeyInputs, KeyOutputs]):
    """A key for a Bearer token."""

    async def problems(self, ctx: kit.Context, inputs: KeyInputs, old: KeyInputs | None) -> AsyncIterator[kit.Problem]:
        value = inputs.value
        if value is not None and not (
            len(value) >= 20 and value.isascii() and value.isprintable() and " " not in value
        ):
            yield kit.Problem(
                ("value",),
                "is too easy to guess or cannot stand in a header",
                "at least 20 printable ASCII characters without spaces",
                "give a longer key, or none: then one is made",
            )

    def preview(self) -> Mapping[str, Callable[[KeyInputs], Any]]:
        def outputs(inputs: KeyInputs) -> KeyOutputs:
            if inputs.value is None:
                raise kit.NotKnownYetError("a key that is made is not known before")
            return _outputs(inputs.value)

        return {"key": lambda inputs: outputs(inputs).key, "sha256": lambda inputs: outputs(inputs).sha256}

    async def create(self, ctx: kit.Context, inputs: KeyInputs) -> tuple[str, KeyOutputs]:
        outputs = _outputs(inputs.value or f"lf-{secrets.token_urlsafe(_RANDOM_BYTES)}")
        return f"key-{secrets.token_hex(4)}", outputs

    async def update(self, ctx: kit.Context, resource_id: str, old: KeyInputs | None, inputs: KeyInputs) -> KeyOutputs:
        return _outputs(inputs.value or f"lf-{secrets.token_urlsafe(_RANDOM_BYTES)}")

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: KeyInputs | None, outputs: KeyOutputs | None
    ) -> kit.Reading[KeyInputs, KeyOutputs] | None:
        if inputs is None or outputs is None:
            raise kit.ResourceError(
                "a key cannot be imported: it exists in a stack's state alone",
                next_action="declare it with `value` set to a Pulumi secret instead",
            )
        return kit.Reading(inputs, outputs)

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: KeyInputs | None) -> None:
        return None


def _outputs(key: str) -> KeyOutputs:
    return KeyOutputs(key=key, sha256=hashlib.sha256(key.encode()).hexdigest())
