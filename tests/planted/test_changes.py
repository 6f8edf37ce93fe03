"""The planted and null changes themselves: they apply to the code as it is, and say what must be found."""

import importlib.util
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from reports.trace import STEP_ORDER
from twin.scenario import read_scenario


def _changes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("planted_changes", Path(__file__).parent / "changes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


changes = _changes()
ALL = [*changes.planted(), *changes.null()]


def test_there_are_sixteen_to_find_and_thirty_to_call_nothing() -> None:
    assert len(changes.planted()) == 16
    assert len(changes.null()) == 30


@pytest.mark.parametrize("change", ALL, ids=lambda change: change.name)
def test_a_change_applies_to_the_code_as_it_is(change) -> None:  # type: ignore[no-untyped-def]  # loaded by path
    for edit in change.edits:
        text = (changes.ROOT / edit.file).read_text()
        compile(edit.applied(text), edit.file, "exec")
    scenario = changes.ROOT / "scenarios" / "regression.toml"
    if change.overrides:
        assert msgspec.to_builtins(read_scenario(scenario, change.overrides)) != msgspec.to_builtins(
            read_scenario(scenario))


@pytest.mark.parametrize("change", changes.planted(), ids=lambda change: change.name)
def test_a_planted_change_names_what_must_be_found(change) -> None:  # type: ignore[no-untyped-def]  # loaded by path
    assert change.metrics
    assert change.step in STEP_ORDER
    assert change.edits or change.overrides


def test_an_edit_whose_place_is_gone_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"nowhere.py: the text to change occurs 0 times, expected once"):
        changes.Edit("nowhere.py", "old", "new").applied("something else")
