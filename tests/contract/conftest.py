"""Finds every platform's cases: no list names a platform or a resource."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from providers.kit import registry
from providers.kit.testing import Case, Place
from tests.support.plugin_client import Plugin
from tests.support.ports import free_port


def all_cases() -> list[Case]:
    return [
        case
        for platform in registry.platforms()
        for case in importlib.import_module(f"providers.{platform}.contract").cases()
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", all_cases(), ids=str)


@pytest.fixture
def place(case: Case, tmp_path: Path) -> Iterator[Place]:
    here = Place(tmp_path, free_port)
    with case.platform(here) if case.platform else contextlib.nullcontext():
        yield here


@pytest.fixture
def plugin() -> Iterator[Plugin]:
    with Plugin() as running:
        yield running
