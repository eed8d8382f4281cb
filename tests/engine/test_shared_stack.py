"""The stack `shared` through the real engine: its life, what goes wrong, and another stack that refers to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.shared_project import SharedProject, settings
from tests.support.shared_rules import PROTECTED
from tests.support.stack_project import ROOT

BUCKET = "gcp:storage/bucket:Bucket"
POOL = "projects/123456789012/locations/global/workloadIdentityPools/lorafleet-github"
# Put together here, so that no scanner takes this file for a leak.
VALUE = "rpa" + "_" + "Qw3rTyUiOpAsDfGhJkLzXcVb"

REFERRING = """
import pulumi
from providers import shared

foundations = shared.reference()
pulumi.export("store", foundations.store)
pulumi.export("image", pulumi.Output.concat(foundations.images, "/serving"))
pulumi.export("account", foundations.account("gce"))
pulumi.export("secret", foundations.secret("router-keys"))
"""


@pytest.fixture
def shared(tmp_path: Path) -> SharedProject:
    return SharedProject(tmp_path / "project")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> SharedProject:
    made = SharedProject(tmp_path_factory.mktemp("shared") / "project")
    made.up().ok()
    return made


@pytest.fixture
def there(template: SharedProject, tmp_path: Path) -> SharedProject:
    """The stack, brought up already."""
    return template.copied(tmp_path / "project")


def things(project: SharedProject) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = project.cloud()["resources"]
    return found


def clear(output: str) -> str:
    """An error as people see it: no traceback, nothing about the inside."""
    assert "Traceback" not in output, output
    assert "unhandled" not in output, output
    assert "  next:" in output, output
    return output


def test_up_nothing_to_do_and_a_destroy_that_is_refused(there: SharedProject) -> None:
    made = things(there)
    there.preview("--expect-no-changes").ok()
    there.refresh("--expect-no-changes").ok()
    assert there.output("githubVariables") == {
        "GCP_PROJECT": "fleet-123",
        "GCP_WORKLOAD_IDENTITY_PROVIDER": f"{POOL}/providers/github-actions",
        "IMAGE_REGISTRY": "asia-northeast3-docker.pkg.dev/fleet-123/lorafleet",
    }
    members = {each["inputs"].get("member", "") for each in made.values()}
    assert {member for member in members if member.startswith("principal")} == {
        f"principalSet://iam.googleapis.com/{POOL}/attribute.purpose/preview",
        f"principalSet://iam.googleapis.com/{POOL}/attribute.purpose/deploy",
    }

    refused = there.run("destroy", "--yes")
    assert refused.code != 0
    assert "protected" in refused.output
    assert things(there) == made, "nothing was taken away"

    # Without its preview, the engine takes away what is not protected before it stops.
    assert there.destroy().code != 0
    kept = {key for key, each in made.items() if each["type"] in PROTECTED}
    assert kept and kept <= set(things(there))
    there.up().ok()
    assert things(there) == made, "and `up` brings it back"


def test_what_somebody_changed_is_seen_and_mended(there: SharedProject) -> None:
    good = there.cloud()
    content = there.cloud()
    [bucket] = [each for each in content["resources"].values() if each["type"] == BUCKET]
    for values in (bucket["inputs"], bucket["outputs"]):
        values["publicAccessPrevention"] = "inherited"
    gone = next(key for key, each in content["resources"].items() if "served/" in json.dumps(each["inputs"]))
    del content["resources"][gone]
    there.write_cloud(content)

    drift = there.preview("--refresh", "--expect-no-changes")
    assert drift.code != 0
    assert "publicAccessPrevention" in there.preview("--refresh", "--diff").ok().output
    there.up("--refresh").ok()
    assert things(there) == good["resources"]


def test_a_create_that_google_refuses_is_finished_by_the_next_up(shared: SharedProject) -> None:
    reason = "googleapi: Error 409: The requested bucket name is not available"
    shared.write_cloud({"failures": [{"on": "create", "type": BUCKET, "message": reason}]})
    failed = shared.up()
    assert failed.code != 0
    assert reason in failed.output
    shared.up().ok()
    assert [each["type"] for each in things(shared).values()].count(BUCKET) == 1
    shared.preview("--expect-no-changes").ok()


def test_a_replacement_that_would_lose_the_bucket_is_refused(there: SharedProject) -> None:
    made = things(there)
    there.set(store={"bucket": "another-bucket"})
    refused = there.preview()
    assert refused.code != 0
    assert "protect" in refused.output
    assert there.up().code != 0
    assert [key for key in made if key not in things(there) and "bucket:" in key] == []
    # What is changed in place needs no permission.
    there.set(store={**settings()["store"], "keepReplacedDays": 90}, images={"keepLast": 5})
    there.up().ok()
    [bucket] = [each for each in things(there).values() if each["type"] == BUCKET]
    assert bucket["inputs"]["lifecycleRules"][0]["condition"]["daysSinceNoncurrentTime"] == 90


def test_the_file_that_ships_says_what_to_fill_in(shared: SharedProject) -> None:
    shared.stack_file.write_text((ROOT / "stacks" / "Pulumi.shared.yaml").read_text())
    refused = shared.preview()
    assert refused.code != 0
    output = clear(refused.output)
    assert "5 mistakes" in output
    for field in ("project", "store.bucket", "github.repository", "github.ownerId", "github.repositoryId"):
        assert f": {field}: this is still the placeholder" in output
    assert not shared.cloud_file.exists()


def test_the_value_of_a_secret_is_shown_nowhere(shared: SharedProject) -> None:
    shared.run("config", "set", "--secret", "secret-runpod-api-key", VALUE).ok()
    shown = shared.preview("--diff", "--json").ok().output + shared.up("--diff").ok().output
    [version] = [each for each in things(shared).values() if each["type"].endswith("SecretVersion")]
    assert version["inputs"]["secretData"] == VALUE, "Google has it"
    assert version["inputs"]["secret"] == "projects/fleet-123/secrets/runpod-api-key"
    shown += shared.preview("--expect-no-changes", "--diff").ok().output
    assert VALUE not in shown + shared.state_text() + shared.stack_file.read_text()

    shared.run("config", "set", "--plaintext", "secret-runpod-api-key", VALUE).ok()
    refused = clear(shared.preview().output)
    assert "plain text" in refused
    assert VALUE not in refused


def test_another_stack_refers_to_it(there: SharedProject) -> None:
    program = there.folder / "stacks" / "dev.py"
    program.write_text(REFERRING)
    there.run("stack", "init", "dev").ok()
    there.run("up", "--yes", "--skip-preview", "--stack", "dev").ok()
    outputs = json.loads(there.run("stack", "output", "--json", "--stack", "dev").ok().output)
    assert outputs == {
        "store": "gs://fleet-123-lorafleet",
        "image": "asia-northeast3-docker.pkg.dev/fleet-123/lorafleet/serving",
        "account": "lorafleet-gce@fleet-123.iam.gserviceaccount.com",
        "secret": "projects/fleet-123/secrets/router-keys",
    }
    for right, wrong, says in (
        ('account("gce")', 'account("gc")', "did you mean gce?"),
        ('secret("router-keys")', 'secret("router-key")', "did you mean router-keys?"),
    ):
        program.write_text(REFERRING.replace(right, wrong))
        refused = there.run("preview", "--stack", "dev")
        assert refused.code != 0
        assert says in refused.output
        assert "Traceback" not in refused.output, refused.output


def test_another_stack_that_comes_too_early(shared: SharedProject) -> None:
    (shared.folder / "stacks" / "dev.py").write_text(REFERRING)
    shared.run("stack", "init", "dev").ok()
    early = shared.run("preview", "--stack", "dev")
    assert early.code != 0
    assert "the stack organization/serving/shared has no output" in early.output
    assert "bring it up first" in early.output
    assert "Traceback" not in early.output


def test_the_stand_in_refuses_what_pulumi_gcp_does_not_know(shared: SharedProject) -> None:
    """tests/unit/test_shared_stand_in.py has the cases; this one sees that the engine hears of them."""
    declared = '"gcp:storage/bucket:Bucket", "b", {"locatoin": "EU"}'
    (shared.folder / "stacks" / "shared.py").write_text(f"import pulumi\npulumi.CustomResource({declared})\n")
    refused = shared.preview()
    assert refused.code != 0
    assert "did you mean location?" in refused.output, refused.output
