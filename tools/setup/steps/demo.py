"""The demo model and its adapters, which are committed."""

from __future__ import annotations

from pathlib import Path

from tools.setup.errors import SetupError
from tools.setup.paths import ROOT
from tools.setup.progress import Task

NEEDED = (
    "demo/base/config.json",
    "demo/adapters/easycontract/adapter_model.safetensors",
    "demo/adapters/checklist/adapter_model.safetensors",
)


class Demo:
    """Only a look: an incomplete checkout is told apart from a fault later on."""

    title = "demo model"

    def present(self) -> str | None:
        """Whether the files are in the checkout."""
        return "in the checkout" if not self._missing() else None

    def needs_gib(self) -> dict[Path, float]:
        """Nothing is fetched."""
        return {}

    def install(self, task: Task) -> str:
        """Nothing can be done here: says how to get the files back."""
        raise SetupError(
            f"this checkout lacks {', '.join(self._missing())}",
            "get the files back with `git checkout -- demo`, or train them anew (tools/demo says how)",
        )

    def _missing(self) -> list[str]:
        return [name for name in NEEDED if not (ROOT / name).is_file()]
