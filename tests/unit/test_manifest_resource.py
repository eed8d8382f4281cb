"""What the manifest refuses before anything is written, beyond what the contract tests see."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from providers import kit
from providers.artifacts import layout
from providers.artifacts.resources import Manifest

BASE, ADAPTER = f"sha256:{'0' * 64}", f"sha256:{'1' * 64}"


def problems(store: Path, **inputs: Any) -> tuple[list[kit.Problem], list[str]]:
    """What is refused, and what is warned of."""
    warned: list[str] = []

    async def say(message: str, severity: str) -> None:
        warned.append(message)

    async def run() -> list[kit.Problem]:
        resource = Manifest()
        source = f"file://{store}/{layout.model('exaone', BASE)}"
        wire = {
            "store": f"file://{store}",
            "environment": "prod",
            "baseModel": {"name": "exaone", "source": source, "digest": BASE},
            "adapters": {"a": ADAPTER},
            **inputs,
        }
        model = resource.inputs_model().model_validate(wire)
        return [each async for each in resource.problems(kit.Context("urn", "manifest", say=say), model, None)]

    return asyncio.run(run()), warned


def put(store: Path, path: str, document: dict[str, Any]) -> None:
    (store / path).parent.mkdir(parents=True, exist_ok=True)
    (store / path).write_text(json.dumps(document))


def test_a_mirrored_base_asks_for_its_licence(tmp_path: Path) -> None:
    """Its files say nothing of it any more, and its place in the store may have any name."""
    put(tmp_path, f"{layout.adapter('a', ADAPTER)}/{layout.METADATA}", {})
    put(tmp_path, f"{layout.model('exaone', BASE)}/{layout.METADATA}", {"version": 1, "licence": "exaone-nc"})
    [refused], _ = problems(tmp_path)
    assert refused.path == ("licenceAccepted",)
    assert "licenceAccepted: exaone-nc" in refused.text()
    assert problems(tmp_path, licenceAccepted="exaone-nc")[0] == []
    put(tmp_path, f"{layout.model('exaone', BASE)}/{layout.METADATA}", {"version": 1, "licence": None})
    assert problems(tmp_path)[0] == []


def test_a_version_that_is_missing_or_held(tmp_path: Path) -> None:
    [refused], _ = problems(tmp_path)
    assert refused.path == ("adapters", "a")
    assert "lorafleet adapter push FOLDER --name a --stack prod" in refused.text()
    put(tmp_path, f"{layout.adapter('a', ADAPTER)}/{layout.METADATA}", {})
    put(tmp_path, layout.hold("a", ADAPTER), {"why": "it is rude"})
    found, warned = problems(tmp_path)
    assert found == []
    assert warned and "it is rude" in warned[0]
