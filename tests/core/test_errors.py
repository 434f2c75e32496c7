"""Every error says what was wrong and the mend, in one line, and survives a process boundary."""

import copy
import inspect

import pytest

from pellucid.core import errors

KINDS = [c for _, c in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_one_line_with_its_mend(kind) -> None:
    error = kind("expected a\n  map,   got none.", "give\none.")
    assert str(error) == "expected a map, got none. give one."
    assert (error.problem, error.mend) == ("expected a map, got none", "give one")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_can_be_rebuilt_as_another_process_does(kind) -> None:
    again = copy.copy(kind("problem", "mend"))
    assert (type(again), again.problem, again.mend, str(again)) == (kind, "problem", "mend", "problem. mend.")


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = [line for line in errors.__doc__.splitlines() if line.startswith(("├", "│", "└"))]
    names = [line.strip("├│└─ ").split()[0] for line in drawn]
    assert names == sorted(names, key=names.index)
    assert set(names) == {c.__name__ for c in KINDS} - {"PellucidError"}
    parent = ""
    for line, name in zip(drawn, names, strict=True):
        kind = getattr(errors, name)
        if line.startswith("│"):
            assert kind.__bases__[0].__name__ == parent
        else:
            assert errors.PellucidError in kind.__bases__
            parent = name


def test_bad_input_is_a_value_error_and_a_bad_declaration_a_type_error() -> None:
    assert issubclass(errors.InputError, ValueError)
    assert issubclass(errors.DeclarationError, TypeError)
    assert not issubclass(errors.ModelError, ValueError)
