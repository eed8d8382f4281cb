"""The artifact store of the `local` stack, with both versions of the demo's adapters."""

from __future__ import annotations

import json
from pathlib import Path

from tools.setup import paths
from tools.setup.progress import Task

STORE = paths.LOCAL / "store"
DEMO = paths.ROOT / "demo"


def wanted() -> list[tuple[str, Path, str]]:
    """(name, folder, digest) of every adapter of the demo."""
    digests = json.loads((DEMO / "digests.json").read_text())
    return [
        (name, DEMO / version / name, digest)
        for version in ("adapters", "adapters-v2")
        for name, digest in digests[version].items()
    ]


class Store:
    """Pushes what is missing, as a user would."""

    title = "demo store"

    def present(self) -> str | None:
        """Whether each version has its metadata, which a push writes last."""
        return "both versions of the demo's adapters" if not self._missing() else None

    def needs_gib(self) -> dict[Path, float]:
        """A megabyte."""
        return {}

    def install(self, task: Task) -> str:
        """Runs `lorafleet adapter push` for each."""
        for name, folder, _ in self._missing():
            task.run(
                [paths.DEV_ENV / "bin" / "lorafleet", "adapter", "push", folder, "--name", name, "--stack", "local"],
                f"pushing {folder.relative_to(paths.ROOT)}",
                expected_s=2,
                on_failure="put right what the log says, then run this again",
            )
        return "both versions of the demo's adapters"

    def _missing(self) -> list[tuple[str, Path, str]]:
        return [
            (name, folder, digest)
            for name, folder, digest in wanted()
            if not (STORE / "adapters" / name / digest.replace(":", "-") / "lorafleet.json").is_file()
        ]
