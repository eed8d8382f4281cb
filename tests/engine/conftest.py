from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stack_project import StackProject


@pytest.fixture
def project(tmp_path: Path) -> Iterator[StackProject]:
    made = StackProject(tmp_path / "project")
    try:
        yield made
    finally:
        made.kill_everything()
