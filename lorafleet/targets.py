"""What every target declares, and how the platforms' own declarations are found.

A platform is a folder `providers/<kind>/` with a `spec.py` in it, whose `SPEC` is a subclass of `TargetSpec`. One that
can serve in several ways has a `spec_<way>.py` for each of the others: the kind `<folder>-<way>`. The component that
makes a target stands beside it, in `target.py` or `target_<way>.py`, as `TARGET`. Nothing lists the platforms: a new
folder is a new kind. A `spec.py` may import pydantic and lorafleet, nothing slower.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lorafleet.engine import EngineSettings
from lorafleet.errors import Problem
from lorafleet.stackfile import FieldPath
from lorafleet.values import Model, Whole

PACKAGE = "providers"


@dataclass(frozen=True, slots=True)
class Site:
    """What a target's check of this machine may know.

    `content_bytes` is the size of the model and the adapters together, or None while a part of it lies
    elsewhere.
    """

    root: Path
    environment: str
    target: str
    content_bytes: int | None


class TargetSpec(Model):
    """Base of the declarations in `providers/<kind>/spec.py`.

    Fields:
        kind: name of the platform's folder; a subclass narrows it to its own.
        engine: how vLLM is started there.
        max_in_flight: requests that the router lets in at the same time.
        max_queue: requests that may wait in the router for this target; more are answered 503 with
            Retry-After.
    """

    kind: str
    engine: EngineSettings = EngineSettings()
    max_in_flight: Annotated[int, Whole(1, 1000, "requests")] = 32
    max_queue: Annotated[int, Whole(0, 1000, "requests")] = 64

    def ports(self) -> Mapping[str, int]:
        """The TCP ports that this target takes on this machine, by their key in the declaration."""
        return {}

    def stack_secrets(self) -> Mapping[str, str]:
        """What the stack must know before `pulumi up` can make this target: {key of a secret of the stack: what it is,
        and where one gets it}. A preview does without."""
        return {}

    def problems(self, site: Site) -> Iterable[tuple[FieldPath, Problem]]:
        """What would keep this target from starting and can be seen on this machine now, each with its field.

        Only looks; a platform is asked nothing here.
        """
        return ()


def kinds() -> tuple[str, ...]:
    """The kinds of targets there are, sorted: every `spec.py` and `spec_<way>.py` in a folder of `providers`."""
    package = importlib.import_module(PACKAGE)
    found = {
        spec.parent.name + spec.stem.removeprefix("spec").replace("_", "-")
        for folder in package.__path__
        for pattern in ("*/spec.py", "*/spec_*.py")
        for spec in Path(folder).glob(pattern)
        if spec.parent.name.isidentifier() and spec.stem.isidentifier()
    }
    return tuple(sorted(found))


def folders_with(file: str) -> tuple[str, ...]:
    """The platforms whose folder has this file, sorted."""
    package = importlib.import_module(PACKAGE)
    found = {path.parent.name for folder in package.__path__ for path in Path(folder).glob(f"*/{file}")}
    return tuple(sorted(name for name in found if name.isidentifier()))


def module_of(kind: str, part: str) -> str:
    """The name of the module that holds the `part` of a kind: `spec` or `target`.

    Raises:
        KeyError: there is no such kind.
    """
    if kind not in kinds():
        raise KeyError(kind)
    # A folder's name is an identifier, so it has no hyphen.
    folder, _, way = kind.partition("-")
    name = f"{part}_{way.replace('-', '_')}" if way else part
    return f"{PACKAGE}.{folder}.{name}"


def spec_of(kind: str) -> type[TargetSpec]:
    """The declaration of a platform.

    Raises:
        KeyError: there is no such platform.
        TypeError: its `spec.py` breaks the rule above; the message says how.
    """
    module = importlib.import_module(module_of(kind, "spec"))
    spec = getattr(module, "SPEC", None)
    if not (isinstance(spec, type) and issubclass(spec, TargetSpec)):
        raise TypeError(f"{module.__name__} must set SPEC to its subclass of lorafleet.targets.TargetSpec")
    return spec
