"""A platform that is a file beside the project, for recording plans.

It is copied into a scratch `providers/example/`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from providers import kit

PLATFORM = "EXAMPLE_PLATFORM"
"""Names the file: {id: inputs by wire name}."""


class DiskInputs(kit.Inputs):
    """What a disk may be told; `zone` needs a new one."""

    zone: kit.Replaced[str] = "a"
    size_gib: int = 10
    labels: Mapping[str, str] | None = None
    tags: list[str] | None = None
    note: str | None = None
    password: kit.Secret[str] | None = None
    settings: Mapping[str, Any] | None = None


class DiskOutputs(kit.Outputs):
    """address: known only once it is made."""

    address: str


class Disk(kit.Resource[DiskInputs, DiskOutputs]):
    """A disk; a new one is made before the old one goes."""

    async def problems(
        self, ctx: kit.Context, inputs: DiskInputs, old: DiskInputs | None
    ) -> AsyncIterator[kit.Problem]:
        if inputs.size_gib > 1000:
            yield kit.Problem(("sizeGib",), "is larger than any disk", "1 to 1000 GiB", "take a smaller one")

    async def create(self, ctx: kit.Context, inputs: DiskInputs) -> tuple[str, DiskOutputs]:
        made = f"disk-{ctx.name}"
        _write(made, inputs.model_dump(by_alias=True))
        return made, DiskOutputs(address=f"10.0.0.{len(ctx.name)}")

    async def read(
        self, ctx: kit.Context, resource_id: str, inputs: DiskInputs | None, outputs: DiskOutputs | None
    ) -> kit.Reading[DiskInputs, DiskOutputs] | None:
        found = _read().get(resource_id)
        if found is None:
            return None
        return kit.Reading(
            DiskInputs.model_validate(found), outputs or DiskOutputs(address=f"10.0.0.{len(resource_id)}")
        )

    async def update(
        self, ctx: kit.Context, resource_id: str, old: DiskInputs | None, inputs: DiskInputs
    ) -> DiskOutputs:
        _write(resource_id, inputs.model_dump(by_alias=True))
        return DiskOutputs(address=f"10.0.0.{len(ctx.name)}")

    async def delete(self, ctx: kit.Context, resource_id: str, inputs: DiskInputs | None) -> None:
        _write(resource_id, None)


class Socket(Disk):
    """A disk that holds a port, so the old one must go first."""

    delete_before_replace: ClassVar[bool] = True


def _read() -> dict[str, Any]:
    path = Path(os.environ[PLATFORM])
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def _write(key: str, value: object) -> None:
    # Calls come one at a time (`--parallel 1`): nothing is lost.
    content = {**_read(), key: value}
    Path(os.environ[PLATFORM]).write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
