"""Contract cases of the keys."""

from __future__ import annotations

from providers.kit.testing import Case
from providers.kit.values import Sealed

from .resources import ApiKey


def cases() -> list[Case]:
    return [
        Case(
            ApiKey,
            inputs=lambda _: {"value": Sealed("a-key-of-my-own-0123456789")},
            changes=lambda _: {"value": Sealed("another-key-of-my-own-01234"), "rotation": "2"},
            importable=False,
            has_leftovers=False,
        ),
        Case(ApiKey, inputs=lambda _: {}, importable=False, has_leftovers=False, name="ApiKey that is made"),
    ]
