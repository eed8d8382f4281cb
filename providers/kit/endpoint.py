"""What a running target yields, as the router needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import pulumi


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server behind the router.

    name, kind: the target's; url: base URL without `/v1`; key: what it asks for as Bearer token; None for none.
    models: public names it serves, base first; served: {adapter: immutable served name}.
    health_path: where it says, without a key, that it can take requests; None if asking could wake a sleeping worker
        or needs the key: then it counts as up, and a request that it refuses goes elsewhere.
    status_path: where it says what it serves; None as above.
    paths: where requests go below `url` instead of their own path: (for whole answers, for streams); None: /v1/….
    token: `google` if it asks for an access token of Google instead of a key; the router gets one by itself.
    headers: what its platform asks for beside the key; secret.
    max_in_flight, max_queue: requests at once, and waiting in the router for it.
    """

    name: str
    kind: str
    url: pulumi.Output[str]
    key: pulumi.Output[str] | None
    models: tuple[str, ...]
    served: pulumi.Output[dict[str, str]]
    max_in_flight: int
    max_queue: int
    health_path: str | None = "/ready"
    status_path: str | None = "/lorafleet/state"
    headers: Mapping[str, pulumi.Output[str]] = field(default_factory=dict)
    paths: tuple[pulumi.Output[str], pulumi.Output[str]] | None = None
    token: Literal["google"] | None = None


class Target(Protocol):
    """A component of a stack that yields an endpoint."""

    endpoint: Endpoint
