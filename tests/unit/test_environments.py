"""The stack files for dev, staging and prod as shipped: what is to be filled in is told, no workflow takes them up."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from lorafleet.errors import LorafleetError
from lorafleet.load import load_fleet, load_stack
from lorafleet.plan import resolve
from tests.support.serving_project import filled_in
from tests.support.stack_project import ROOT
from tools.ci import stacks

SHIPPED = ("dev", "staging", "prod")


@pytest.mark.parametrize("environment", SHIPPED)
def test_each_placeholder_is_told_with_its_line(environment: str) -> None:
    with pytest.raises(LorafleetError) as error:
        load_stack(ROOT, environment)
    text = (ROOT / "stacks" / f"Pulumi.{environment}.yaml").read_text().splitlines()
    wanted = [number for number, line in enumerate(text, 1) if "<" in line.split("#")[0]]
    # `purpose` is any sentence: it is asked for where the licence is looked at.
    wanted = [number for number in wanted if "purpose:" not in text[number - 1]]
    assert len(wanted) >= 4
    for number in wanted:
        assert f"Pulumi.{environment}.yaml:{number}: " in str(error.value)


@pytest.mark.parametrize("environment", SHIPPED)
def test_with_a_teams_own_values_it_is_right(environment: str, tmp_path: Path) -> None:
    file = tmp_path / f"Pulumi.{environment}.yaml"
    declaration = filled_in(environment)
    file.write_text(yaml.safe_dump({"config": {"serving:fleet": declaration}}))
    plan = resolve(load_fleet(declaration, environment=environment, root=tmp_path, stack_file=file))
    assert {target.name for target in plan.targets} == set(declaration["targets"])
    declaration["baseModel"]["purpose"] = "<what the model is used for here>"
    with pytest.raises(LorafleetError, match="without a purpose"):
        resolve(load_fleet(declaration, environment=environment, root=tmp_path, stack_file=file))


def test_workflows_begin_with_the_environments_that_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LORAFLEET_STACKS", raising=False)
    shutil.copytree(ROOT / "stacks", tmp_path / "stacks", ignore=shutil.ignore_patterns("__pycache__"))
    assert stacks.find() == []
    (tmp_path / "stacks" / "Pulumi.dev.yaml").write_text(
        yaml.safe_dump({"config": {"serving:fleet": filled_in("dev")}})
    )
    assert stacks.find() == ["dev"]
    assert stacks.find("staging") == ["staging"], "who names one means it"
    (tmp_path / "stacks" / "serving.py").unlink()
    assert stacks.find() == []
