"""`serving:shared`: what is right, and what is refused with one clear error each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from lorafleet.errors import DeclarationErrors, LorafleetError
from providers.shared.declaration import Settings
from providers.shared.load import load_settings
from tests.support.shared_project import settings
from tests.support.stack_project import ROOT

SHIPPED = ROOT / "stacks" / "Pulumi.shared.yaml"
# Put together here, so that no scanner takes this file for a leak.
SECRET = "rpa" + "_" + "Qw3rTyUiOpAsDfGhJkLzXcVb"


@dataclass(frozen=True)
class Case:
    name: str
    field: str
    change: Callable[[dict[str, Any]], object]
    says: tuple[str, ...] = ()


def put(path: str, value: object) -> Callable[[dict[str, Any]], object]:
    def change(declared: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = declared
        for part in parents:
            here = here.setdefault(part, {})
        here[last] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any]], object]:
    def change(declared: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = declared
        for part in parents:
            here = here[part]
        del here[last]

    return change


def rename(path: str, new: str) -> Callable[[dict[str, Any]], object]:
    def change(declared: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        here: Any = declared
        for part in parents:
            here = here[part]
        here[new] = here.pop(last)

    return change


CASES = [
    Case("project missing", "project", drop("project"), ("missing", "6 to 30")),
    Case("project placeholder", "project", put("project", "<your project's id>"), ("placeholder", "gcloud projects")),
    Case("project number", "project", put("project", 123456789012), ("quotes",)),
    Case("project with capitals", "project", put("project", "Fleet-123")),
    Case("project too short", "project", put("project", "fleet")),
    Case("project too long", "project", put("project", "f" * 31)),
    Case("project ends in hyphen", "project", put("project", "fleet-123-")),
    Case("project of a domain", "project", put("project", "example.com:fleet")),
    Case("project empty", "project", put("project", ""), ("empty",)),
    Case("zone for region", "region", put("region", "asia-northeast3-a"), ("zone",)),
    Case("region misspelt", "region", put("region", "asia-northest3")),
    Case("region upper case", "region", put("region", "ASIA-NORTHEAST3")),
    Case("multi-region", "region", put("region", "asia")),
    Case("region missing", "region", drop("region")),
    Case("bucket placeholder", "store.bucket", put("store.bucket", "<a name>"), ("placeholder",)),
    Case("bucket with capitals", "store.bucket", put("store.bucket", "Fleet")),
    Case("bucket url", "store.bucket", put("store.bucket", "gs://fleet-123")),
    Case("bucket with dots", "store.bucket", put("store.bucket", "models.example.com")),
    Case("bucket too short", "store.bucket", put("store.bucket", "ab")),
    Case("bucket too long", "store.bucket", put("store.bucket", "b" * 64)),
    Case("bucket called google", "store.bucket", put("store.bucket", "my-google-models"), ("`google`",)),
    Case("bucket begins with goog", "store.bucket", put("store.bucket", "goog-models")),
    Case("bucket ends in hyphen", "store.bucket", put("store.bucket", "fleet-")),
    Case("store missing", "store", drop("store"), ("bucket",)),
    Case("store not a mapping", "store", put("store", "gs://fleet"), ("mapping",)),
    Case("replaced days zero", "store.keepReplacedDays", put("store.keepReplacedDays", 0), ("1 to 365",)),
    Case("replaced days text", "store.keepReplacedDays", put("store.keepReplacedDays", "30"), ("quotes",)),
    Case("soft delete too short", "store.keepDeletedDays", put("store.keepDeletedDays", 3), ("7 to 90",)),
    Case("soft delete too long", "store.keepDeletedDays", put("store.keepDeletedDays", 91), ("7 to 90",)),
    Case("soft delete fraction", "store.keepDeletedDays", put("store.keepDeletedDays", 7.5)),
    Case("status days true", "store.keepStatusDays", put("store.keepStatusDays", True)),
    Case("store key misspelt", "store.keepStatusDay", put("store.keepStatusDay", 3), ("`keepStatusDays`",)),
    Case("keep last zero", "images.keepLast", put("images.keepLast", 0), ("1 to 1000",)),
    Case("untagged days negative", "images.deleteUntaggedDays", put("images.deleteUntaggedDays", -1)),
    Case("images key unknown", "images.delete", put("images.delete", "all"), ("keepLast",)),
    Case("repository placeholder", "github.repository", put("github.repository", "<owner>/<repository>")),
    Case("repository url", "github.repository", put("github.repository", "https://github.com/our-team/serving")),
    Case("repository with .git", "github.repository", put("github.repository", "our-team/serving.git"), (".git",)),
    Case("repository without owner", "github.repository", put("github.repository", "serving"), ("owner/repository",)),
    Case("owner with underscore", "github.repository", put("github.repository", "our_team/serving")),
    Case("owner ends in hyphen", "github.repository", put("github.repository", "our-team-/serving")),
    Case("owner with two hyphens", "github.repository", put("github.repository", "our--team/serving")),
    Case("owner id placeholder", "github.ownerId", put("github.ownerId", "<number>"), ("gh api",)),
    Case("owner id text", "github.ownerId", put("github.ownerId", "1001"), ("quotes",)),
    Case("repository id zero", "github.repositoryId", put("github.repositoryId", 0)),
    Case("repository id missing", "github.repositoryId", drop("github.repositoryId")),
    Case("repository id misspelt", "github.repositoryID", rename("github.repositoryId", "repositoryID"), ("Did you",)),
    Case("branch breaks out of the rule", "github.branch", put("github.branch", 'main" || true || "')),
    Case("branch with two dots", "github.branch", put("github.branch", "a..b")),
    Case("no environments", "github.environments", put("github.environments", []), ("empty",)),
    Case("environment twice", "github.environments", put("github.environments", ["dev", "dev"]), ("twice",)),
    Case(
        "too many environments",
        "github.environments",
        put("github.environments", [f"e{n}" for n in range(21)]),
        ("20",),
    ),
    Case("environments a text", "github.environments", put("github.environments", "prod"), ("list",)),
    Case("environment with a quote", "github.environments[0]", put("github.environments", ['prod"'])),
    Case(
        "subject too long",
        "github.environments[0]",
        lambda d: d["github"].update(repository="o" * 39 + "/" + "r" * 40, environments=["e" * 50]),
        ("127",),
    ),
    Case("state in the store", "stateBucket", put("stateBucket", "fleet-123-lorafleet"), ("every server",)),
    Case("state bucket with a url", "stateBucket", put("stateBucket", "gs://fleet-123-pulumi")),
    Case("github missing", "github", drop("github")),
    Case("secret name with capitals", "secrets.RunPod", rename("secrets.router-keys", "RunPod")),
    Case("secret name with a space", "secrets.a b", rename("secrets.router-keys", "a b")),
    Case("secret without readers", "secrets.router-keys.readers", drop("secrets.router-keys.readers")),
    Case("secret nobody reads", "secrets.router-keys.readers", put("secrets.router-keys.readers", []), ("empty",)),
    Case(
        "reader unknown",
        "secrets.router-keys.readers[0]",
        put("secrets.router-keys.readers", ["routr"]),
        ('Did you mean "router"',),
    ),
    Case("reader is everybody", "secrets.router-keys.readers[0]", put("secrets.router-keys.readers", ["allUsers"])),
    Case("secret with its value", "secrets.router-keys.value", put("secrets.router-keys.value", SECRET)),
    Case("unknown key", "projcet", rename("project", "projcet"), ("Did you mean `project`",)),
    Case("a token at the top", "hfToken", put("hfToken", SECRET), ("no secrets",)),
]


def load(declared: Any, folder: Path, **more: Any) -> Settings:
    """As a preview does: the configuration from Pulumi, the file only for the lines."""
    file = folder / "stacks" / "Pulumi.shared.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump({"config": {"serving:shared": declared}}, sort_keys=False))
    return load_settings(declared, stack="shared", root=folder, stack_file=file, **more)


def test_the_right_settings_are_taken(tmp_path: Path) -> None:
    found = load(settings(), tmp_path)
    assert found.email("ci-deploy") == "lorafleet-ci-deploy@fleet-123.iam.gserviceaccount.com"
    assert found.github.environments == ("dev", "staging", "prod")
    assert found.secrets["router-keys"].readers == ("router", "gce")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_one_clear_error(case: Case, tmp_path: Path) -> None:
    declared = settings()
    case.change(declared)
    with pytest.raises(LorafleetError) as caught:
        load(declared, tmp_path)
    text = str(caught.value)
    [error] = caught.value.errors
    assert error.field == case.field, text
    assert error.what and error.allowed and error.next_action, text
    for piece in case.says:
        assert piece in text, text
    assert SECRET not in text and "pydantic" not in text and "Traceback" not in text
    place = re.fullmatch(r"stacks/Pulumi\.shared\.yaml:(\d+)", error.where)
    assert place, text
    line = (tmp_path / "stacks" / "Pulumi.shared.yaml").read_text().splitlines()[int(place[1]) - 1]
    parts = [part.rstrip("]") for part in re.split(r"[.\[]", case.field)]
    assert any(part in line for part in (*parts, "serving:shared")) or line.strip().startswith("-"), line


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
    assert len({case.name for case in CASES}) == len(CASES)


def test_the_file_that_ships_asks_to_be_filled_in() -> None:
    """A newcomer sees every placeholder, and nothing else is wrong with the file."""
    declared = yaml.safe_load(SHIPPED.read_text())["config"]["serving:shared"]
    with pytest.raises(DeclarationErrors) as caught:
        load_settings(declared, stack="shared", root=ROOT, stack_file=SHIPPED)
    lines = SHIPPED.read_text().splitlines()
    found = {error.field: error for error in caught.value.errors}
    assert set(found) == {"project", "store.bucket", "github.repository", "github.ownerId", "github.repositoryId"}
    for error in found.values():
        assert "placeholder" in error.what
        assert "<" in lines[int(error.where.rpartition(":")[2]) - 1]
    for path, value in {
        "project": "fleet-123",
        "store.bucket": "fleet-123-lorafleet",
        "github.repository": "our-team/serving",
        "github.ownerId": 1,
        "github.repositoryId": 2,
    }.items():
        put(path, value)(declared)
    load_settings(declared, stack="shared", root=ROOT, stack_file=SHIPPED)


def test_a_value_in_plain_text_is_refused(tmp_path: Path) -> None:
    load(settings(), tmp_path, values={"router-keys": True})
    with pytest.raises(LorafleetError, match="plain text") as caught:
        load(settings(), tmp_path, values={"router-keys": False})
    assert "--secret secret-router-keys" in str(caught.value)


def test_a_value_for_no_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LorafleetError) as caught:
        load(settings(), tmp_path, values={"router-key": True})
    assert "Did you mean secret-router-keys?" in str(caught.value)


def test_several_mistakes_are_all_shown(tmp_path: Path) -> None:
    declared = settings()
    put("region", "nowhere")(declared)
    put("images.keepLast", 0)(declared)
    with pytest.raises(DeclarationErrors) as caught:
        load(declared, tmp_path)
    assert {error.field for error in caught.value.errors} == {"region", "images.keepLast"}


def test_without_a_file_the_stack_is_named() -> None:
    with pytest.raises(LorafleetError) as caught:
        load_settings({**settings(), "region": "x"}, stack="shared", root=Path("/"))
    assert caught.value.where == "stack shared"
