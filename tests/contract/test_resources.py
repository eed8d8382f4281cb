"""What every resource of every platform must do, through a real plugin process."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from providers.kit import fields, registry, values
from providers.kit.testing import Case, Place
from providers.kit.values import UNKNOWN, Sealed
from tests.contract.conftest import all_cases
from tests.support.plugin_client import CallError, Plugin


def urn_of(case: Case, name: str = "thing") -> str:
    return f"urn:pulumi:test::serving::{registry.token_of(case.resource)}::{name}"


def checked(plugin: Plugin, case: Case, news: dict[str, Any], seed: bytes = os.urandom(32)) -> dict[str, Any]:
    inputs, failures = plugin.check(urn_of(case), news, seed=seed)
    assert failures == []
    return inputs


@contextmanager
def created(plugin: Plugin, case: Case, place: Place) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(id, inputs, outputs) of a real resource, which is deleted at the end."""
    inputs = checked(plugin, case, case.inputs(place))
    made, outputs, _ = plugin.create(urn_of(case), inputs)
    try:
        yield made, inputs, outputs
    finally:
        plugin.delete(urn_of(case), made, inputs, outputs)


def test_every_resource_of_every_platform_has_a_case() -> None:
    covered = {case.resource for case in all_cases()}
    found = {each for platform in registry.platforms() for each in registry.resources(platform).values()}
    assert covered == found


def test_the_schema_names_every_resource(plugin: Plugin) -> None:
    schema = json.loads(plugin.schema())
    assert set(schema["resources"]) == {registry.token_of(case.resource) for case in all_cases()}


def test_it_is_documented(case: Case) -> None:
    for documented in (case.resource, case.resource.inputs_model(), case.resource.outputs_model()):
        assert (inspect.getdoc(documented) or "").strip(), f"{documented} has no docstring"


def test_a_check_of_checked_inputs_changes_nothing(case: Case, place: Place, plugin: Plugin) -> None:
    first = checked(plugin, case, case.inputs(place))
    again, failures = plugin.check(urn_of(case), case.inputs(place), first, seed=os.urandom(32))
    assert failures == []
    assert again == first


def test_an_unknown_input_is_refused_with_the_nearest_name(case: Case, place: Place, plugin: Plugin) -> None:
    for wire in fields.by_alias(case.resource.inputs_model()):
        inputs = {**case.inputs(place), f"{wire}x": 1}
        _, failures = plugin.check(urn_of(case), inputs)
        assert [where for where, _ in failures] == [f"{wire}x"]
        assert f"did you mean '{wire}'" in failures[0][1]


def test_a_missing_input_is_named(case: Case, place: Place, plugin: Plugin) -> None:
    for wire, (_, info) in fields.by_alias(case.resource.inputs_model()).items():
        if info.is_required():
            inputs = {key: value for key, value in case.inputs(place).items() if key != wire}
            _, failures = plugin.check(urn_of(case), inputs)
            assert [where for where, _ in failures] == [wire]
            assert "is required" in failures[0][1]


def test_a_wrong_type_is_named_and_no_secret_is_shown(case: Case, place: Place, plugin: Plugin) -> None:
    wrong = "wrong-value-41"
    for wire, (_, info) in fields.by_alias(case.resource.inputs_model()).items():
        secret = fields.has(info, fields.secret)
        value: Any = [{"wrong": wrong}] if info.annotation is str else wrong
        if secret:
            value = Sealed({"no": wrong})
        _, failures = plugin.check(urn_of(case), {**case.inputs(place), wire: value})
        assert failures, f"{wire} took {value!r}"
        for where, reason in failures:
            assert wire in (where or reason)
            assert "Traceback" not in reason
            if secret:
                assert where == "", "the engine prints the value of a property that is named"
                assert wrong not in reason


def test_every_input_may_be_unknown_at_preview(case: Case, place: Place, plugin: Plugin) -> None:
    declared = {*fields.by_alias(case.resource.inputs_model()), *fields.by_alias(case.resource.outputs_model())}
    for wire in case.inputs(place):
        inputs, failures = plugin.check(urn_of(case), {**case.inputs(place), wire: UNKNOWN})
        assert failures == []
        assert values.unseal(inputs[wire]) is UNKNOWN
        made, outputs, _ = plugin.create(urn_of(case), inputs, preview=True)
        assert made == ""
        required = {key for key in declared if key in inputs or key in _outputs(case)}
        assert required <= set(outputs), "an output that is left out shows as a change"


def _outputs(case: Case) -> set[str]:
    return set(fields.by_alias(case.resource.outputs_model()))


def test_what_preview_knows_is_true(case: Case, place: Place, plugin: Plugin) -> None:
    before = sorted(place.folder.rglob("*"))
    inputs = checked(plugin, case, case.inputs(place))
    _, previewed, _ = plugin.create(urn_of(case), inputs, preview=True)
    assert sorted(place.folder.rglob("*")) == before, "a preview made something"
    made, outputs, _ = plugin.create(urn_of(case), inputs)
    try:
        known = {key: value for key, value in previewed.items() if not values.has_unknown(value)}
        assert known == {key: outputs[key] for key in known}
    finally:
        plugin.delete(urn_of(case), made, inputs, outputs)


def test_it_lives_from_create_to_delete(case: Case, place: Place, plugin: Plugin) -> None:
    with created(plugin, case, place) as (made, inputs, outputs):
        assert made
        assert set(outputs) >= _outputs(case)
        answer = plugin.diff(urn_of(case), made, inputs, inputs, outputs)
        assert answer.changes == answer.DIFF_NONE
        found, read_inputs, read_outputs = plugin.read(urn_of(case), made, inputs, outputs)
        assert found == made
        assert read_inputs == inputs, "a read right after a create shows drift"
        assert read_outputs == outputs
        again, failures = plugin.check(urn_of(case), case.inputs(place), inputs)
        assert (again, failures) == (inputs, []), "its own port, name or quota counts as taken"
    found, _, _ = plugin.read(urn_of(case), made, inputs, outputs) if case.has_leftovers else ("", {}, {})
    assert found == ""
    plugin.delete(urn_of(case), made, inputs, outputs)


def test_secrets_are_marked_in_the_state(case: Case, place: Place, plugin: Plugin) -> None:
    with created(plugin, case, place) as (_, inputs, outputs):
        for secret in values.secret_texts(inputs) | values.secret_texts(outputs):
            for path, node in values.walk(outputs):
                if isinstance(node, str) and secret in node:
                    marked = values.sealed_paths(outputs)
                    assert any(path[: len(at)] == at for at in marked), f"{path} shows a secret"
        for wire, (_, info) in fields.by_alias(case.resource.outputs_model()).items():
            if fields.has(info, fields.secret):
                assert isinstance(outputs[wire], Sealed)


def test_every_change_is_seen_and_applied(case: Case, place: Place, plugin: Plugin) -> None:
    for wire, value in case.changes(place).items():
        with created(plugin, case, place) as (made, inputs, outputs):
            news, failures = plugin.check(urn_of(case), {**case.inputs(place), wire: value}, inputs)
            assert failures == []
            answer = plugin.diff(urn_of(case), made, inputs, news, outputs)
            assert list(answer.diffs) == [wire]
            if answer.replaces:
                # The engine checks once more, without the old inputs, while the old one still lives.
                asked = {key: value for key, value in news.items() if key not in _auto_names(case)}
                assert plugin.check(urn_of(case), asked)[1] == []
                continue
            outputs.update(plugin.update(urn_of(case), made, outputs, inputs, news))
            found, read_inputs, _ = plugin.read(urn_of(case), made, news, outputs)
            assert found == made
            assert read_inputs == news, "the platform does not have what the update said"


def _auto_names(case: Case) -> set[str]:
    made = fields.by_alias(case.resource.inputs_model()).items()
    return {wire for wire, (_, info) in made if fields.has(info, fields.auto_name)}


def test_marks_stand_where_they_are_honoured(case: Case) -> None:
    """AutoName, Normalised and Expected count on a resource's own fields alone."""
    for inner in [*_nested(case.resource.inputs_model()), *_nested(case.resource.outputs_model())]:
        for name, info in inner.model_fields.items():
            marked = fields.has(info, fields.auto_name) or fields.normaliser(info) or fields.expected(info)
            assert not marked, f"{inner.__name__}.{name}"


def _nested(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for info in model.model_fields.values():
        for inner in fields.models_in(info.annotation):
            yield inner
            yield from _nested(inner)


def test_one_thing_is_left_after_a_create_that_nobody_recorded(case: Case, place: Place) -> None:
    """kill -9 of the plugin after its work and before its answer: the next run knows nothing of it."""
    if not case.has_leftovers:
        pytest.skip("it exists in the state alone")
    with Plugin() as first:
        inputs = checked(first, case, case.inputs(place))
        lost, _, _ = first.create(urn_of(case), inputs)
        first.kill()
    with Plugin() as second:
        again = checked(second, case, case.inputs(place), seed=os.urandom(32))
        made, outputs, _ = second.create(urn_of(case), again)
        assert made == lost, "the thing was made twice"
        found, read_inputs, _ = second.read(urn_of(case), made, again, outputs)
        assert (found, read_inputs) == (made, again)
    with Plugin() as third:
        third.delete(urn_of(case), made, again, outputs)
        assert third.read(urn_of(case), made, again, outputs)[0] == ""


def test_what_the_state_owns_is_not_taken_over(case: Case, place: Place, plugin: Plugin) -> None:
    """A replacement that creates first: the new one must not be the old one, which will be deleted."""
    if not case.has_leftovers or case.resource.delete_before_replace:
        pytest.skip("the old one is deleted first")
    with created(plugin, case, place) as (made, inputs, outputs):
        plugin.diff(urn_of(case), made, inputs, inputs, outputs)
        other = checked(plugin, case, case.inputs(place), seed=os.urandom(32))
        second, second_outputs, _ = plugin.create(urn_of(case), other)
        plugin.delete(urn_of(case), second, other, second_outputs)
        assert second != made


def test_what_vanished_is_told(case: Case, place: Place, plugin: Plugin) -> None:
    if case.vanish is None:
        pytest.skip("nothing real exists")
    with created(plugin, case, place) as (made, inputs, outputs):
        case.vanish(place, made)
        try:
            found, _, _ = plugin.read(urn_of(case), made, inputs, outputs)
        except CallError as error:
            assert error.kept is not None, "the state would lose it"
            broken = values.decode(error.kept.properties)
            answer = plugin.diff(urn_of(case), made, inputs, inputs, broken)
            assert answer.changes == answer.DIFF_SOME, "`pulumi refresh` would not show it"
            mended = plugin.update(urn_of(case), made, broken, inputs, inputs)
            assert plugin.read(urn_of(case), made, inputs, mended)[0] == made
        else:
            assert found == ""


def test_import_by_id(case: Case, place: Place, plugin: Plugin) -> None:
    with created(plugin, case, place) as (made, inputs, _):
        if case.importable:
            found, read_inputs, read_outputs = plugin.read(urn_of(case), made)
            assert found == made
            assert values.unseal(read_inputs) == values.unseal(inputs)
            assert set(read_outputs) >= _outputs(case)
        else:
            with pytest.raises(CallError, match="next:"):
                plugin.read(urn_of(case), made)
