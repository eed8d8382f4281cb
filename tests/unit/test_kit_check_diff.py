"""Checks and diffs of the kit, on a made-up resource with every kind of field."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from providers import kit
from providers.kit import fields
from providers.kit.check import Checked, check, load
from providers.kit.diff import Change, diff, diff_outputs
from providers.kit.values import UNKNOWN, Sealed


class Disk(kit.Model):
    size_gib: Annotated[int, Field(ge=10, le=2000)] = 40
    kind: kit.Replaced[Literal["ssd", "hdd"]] = "ssd"
    token: kit.Secret[str] | None = None


class Inputs(kit.Inputs):
    name: kit.AutoName
    zone: kit.Replaced[str]
    image: Annotated[str, kit.Normalised(str.lower)] = "base"
    password: kit.Secret[str]
    disk: Disk = Disk()
    disks: list[Disk] = Field(default_factory=list)
    labels: dict[str, str] = Field(default_factory=dict)


class Outputs(kit.Outputs):
    status: Annotated[str, kit.Expected("ready")]


GOOD: dict[str, Any] = {"zone": "a", "password": Sealed("s3cret-pass")}


def checked(news: dict[str, Any], olds: dict[str, Any] | None = None, seed: bytes = b"0" * 32) -> Checked:
    return check(Inputs, news, olds, name="My Server", seed=seed)


def faults(news: dict[str, Any]) -> list[tuple[str, str]]:
    return [(".".join(map(str, p.path)), p.text()) for p in checked(news).problems]


def test_defaults_are_filled_in_and_secrets_stay_marked() -> None:
    result = checked(GOOD)
    assert result.problems == []
    assert result.inputs["disk"] == {"sizeGib": 40, "kind": "ssd"}
    assert result.inputs["password"] == Sealed("s3cret-pass")
    assert isinstance(result.model, Inputs)
    assert result.model.password == "s3cret-pass"


def test_a_secret_field_is_marked_even_if_the_program_did_not() -> None:
    result = checked({"zone": "a", "password": "plain-pass", "disks": [{"token": "tok-1234"}]})
    assert result.inputs["password"] == Sealed("plain-pass")
    assert result.inputs["disks"][0]["token"] == Sealed("tok-1234")


def test_a_mark_of_the_program_on_a_plain_field_is_kept() -> None:
    assert checked({**GOOD, "labels": {"who": Sealed("me")}}).inputs["labels"] == {"who": Sealed("me")}


def test_a_name_is_made_once_and_kept() -> None:
    first = checked(GOOD).inputs["name"]
    assert first.startswith("my-server-")
    assert checked(GOOD, {"name": first}, seed=b"1" * 32).inputs["name"] == first
    assert checked(GOOD, None, seed=b"1" * 32).inputs["name"] != first
    assert checked(GOOD).inputs["name"] == first, "the same seed gives the same name (up --plan)"


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"zone": 3}, "zone", "found 3"),
        ({"zone": None}, "zone", "is required"),
        ({"zonne": "a"}, "zonne", "did you mean 'zone'?"),
        ({"disk": {"sizeGiB": 40}}, "disk.sizeGiB", "did you mean 'sizeGib'?"),
        ({"disk": {"sizeGib": 5}}, "disk.sizeGib", "found 5"),
        ({"disk": {"sizeGib": "40"}}, "disk.sizeGib", "found '40'"),
        ({"disk": {"sizeGib": True}}, "disk.sizeGib", "found True"),
        ({"disks": [{}, {"kind": "tape"}]}, "disks.1.kind", "'ssd' or 'hdd'"),
        ({"labels": {"a": 1}}, "labels.a", "found 1"),
        ({"name": "Has Blanks"}, "name", "found 'Has Blanks'"),
    ],
)
@pytest.mark.parametrize("known", [True, False], ids=["all known", "with an unknown"])
def test_a_fault_is_named_by_path(change: dict[str, Any], path: str, words: str, known: bool) -> None:
    news = {**GOOD, **change} if known else {**GOOD, **change, "password": Sealed(UNKNOWN)}
    found = faults(news)
    assert [where for where, _ in found] == [path]
    assert words in found[0][1]


def test_a_fault_in_a_secret_does_not_show_it() -> None:
    found = checked({"zone": "a", "password": Sealed(123456), "disk": {"token": Sealed(987654)}})
    assert len(found.problems) == 2
    assert not any("123456" in p.text() or "987654" in p.text() for p in found.problems)


def test_unknown_values_are_no_faults_and_pass_through() -> None:
    news = {"zone": UNKNOWN, "password": Sealed(UNKNOWN), "disks": [{"sizeGib": UNKNOWN}, {"sizeGib": 50}]}
    result = checked(news)
    assert result.problems == []
    assert result.model is None
    assert result.inputs["zone"] is UNKNOWN
    assert result.inputs["disks"] == news["disks"]
    assert result.inputs["disk"] == {"sizeGib": 40, "kind": "ssd"}, "defaults all the same"


def test_a_fault_beside_an_unknown_value_is_seen_at_preview() -> None:
    assert faults({**GOOD, "disks": [{"sizeGib": UNKNOWN}, {"sizeGib": 1}]}) != []


def test_checked_inputs_load_again() -> None:
    result = checked(GOOD)
    assert load(Inputs, result.inputs) == result.model


def changes(old: dict[str, Any], new: dict[str, Any], **options: Any) -> list[Change]:
    return diff(Inputs, checked(old).inputs, checked(new, checked(old).inputs).inputs, **options)


def test_no_change() -> None:
    assert changes(GOOD, GOOD) == []


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ({"zone": "b"}, [Change(("zone",), "update", replace=True)]),
        ({"name": "other"}, [Change(("name",), "update", replace=True)]),
        ({"disk": {"sizeGib": 41}}, [Change(("disk", "sizeGib"), "update", replace=False)]),
        ({"disk": {"kind": "hdd"}}, [Change(("disk", "kind"), "update", replace=True)]),
        ({"disks": [{}]}, [Change(("disks", 0), "add", replace=False)]),
        ({"labels": {"a": "1"}}, [Change(("labels", "a"), "add", replace=False)]),
        ({"password": Sealed("another-pass")}, [Change(("password",), "update", replace=False)]),
        ({"password": Sealed(UNKNOWN)}, [Change(("password",), "update", replace=False)]),
        ({"image": "BASE"}, []),
        ({"image": "other"}, [Change(("image",), "update", replace=False)]),
    ],
)
def test_changes_are_told_leaf_by_leaf(new: dict[str, Any], expected: list[Change]) -> None:
    assert changes(GOOD, {**GOOD, **new}) == expected


def test_removed_leaves() -> None:
    old = {**GOOD, "labels": {"a": "1"}, "disks": [{}, {}]}
    new = {**GOOD, "disks": [{}]}
    assert changes(old, new) == [
        Change(("disks", 1), "delete", replace=False),
        Change(("labels", "a"), "delete", replace=False),
    ]


def test_ignored_changes() -> None:
    new = {**GOOD, "zone": "b", "disk": {"sizeGib": 99}}
    assert changes(GOOD, new, ignore=["zone", "disk.sizeGib"]) == []
    assert changes(GOOD, new, ignore=["disk"]) == [Change(("zone",), "update", replace=True)]


def test_an_output_that_is_not_as_expected_is_a_change_to_mend() -> None:
    assert diff_outputs(Outputs, {"status": "ready"}) == []
    assert diff_outputs(Outputs, {"status": "dead"}) == [Change(("status",), "update", replace=False, of_input=False)]
    assert diff_outputs(Outputs, {}) == []


def test_what_the_program_marked_secret_is_hidden_in_any_field() -> None:
    pem = "-----BEGIN KEY-----\n" + "SECRET" * 20
    found = checked({**GOOD, "zone": Sealed({"no": pem}), "labels": {"a": Sealed(12345678)}}).problems
    assert len(found) == 2
    assert not any("SECRET" in p.text() or "12345678" in p.text() for p in found)


def test_inputs_have_wire_names_alone() -> None:
    assert faults({**GOOD, "disk": {"size_gib": 40}}) != []


def test_a_dictionary_whose_keys_look_like_fields_hides_its_secrets() -> None:
    class Box(kit.Inputs):
        disks: dict[str, Disk]

    tree = {"disks": {"token": {"token": "t0ken-1"}, "size": {"token": "t0ken-2"}}}
    assert fields.secret_paths(Box, tree) == {("disks", "token", "token"), ("disks", "size", "token")}


def test_a_name_starts_with_a_letter() -> None:
    assert check(Inputs, GOOD, None, name="2nd", seed=b"0").problems == []
