"""Sizes and manners that a reader relies on, read off the syntax trees."""

import ast
import re
from typing import Any

MOST_LINES = 400
MOST_BODY = 40
MOST_PARAMETERS = 8
EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|manager|handler|misc|common)(_|$)")


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    rest = function.body[1:] if has_docstring else function.body
    return (function.end_lineno or 0) - (rest[0].lineno if rest else (first.end_lineno or 0) + 1) + 1


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names of the parameters, without the instance."""
    a = function.args
    names = [p.arg for p in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return [n for n in names if n not in ("self", "cls")]


def test_files_are_short(sources: list[Any]) -> None:
    lengths = {s.name: len(s.text.splitlines()) for s in sources}
    assert len(lengths) > 20
    assert not {name: n for name, n in lengths.items() if n > MOST_LINES}


def test_functions_are_short(sources: list[Any]) -> None:
    found = [(where, body_lines(f)) for s in sources for where, f in s.functions()]
    assert len(found) > 100
    assert not [(where, n) for where, n in found if n > MOST_BODY]


def test_functions_take_few_parameters(sources: list[Any]) -> None:
    # the parameters of a command are its options, each with its own help
    found = [
        (where, parameters(f))
        for s in sources
        for where, f in s.functions()
        if f.name.startswith("_") or not s.name.startswith("cli/")
    ]
    assert len(found) > 100
    assert not [(where, p) for where, p in found if len(p) > MOST_PARAMETERS]


def test_no_keyword_bag_in_a_public_signature(sources: list[Any]) -> None:
    every = [(where, f) for s in sources for where, f in s.functions()]
    public = [(where, f) for where, f in every if not any(n.startswith("_") for n in where.split()[1].split("."))]
    assert len(public) > 100
    assert not [where for where, f in public if f.args.kwarg]


def test_names_say_something(sources: list[Any]) -> None:
    assert not [s.name for s in sources if EMPTY_NAMES.search(s.path.stem)]


def test_no_asking_for_attributes_by_name_and_no_assert(sources: list[Any]) -> None:
    asked = [
        f"{s.name}:{n.lineno} {n.func.id}"
        for s in sources
        for n in ast.walk(s.tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == "hasattr"
    ]
    asserted = [f"{s.name}:{n.lineno}" for s in sources for n in ast.walk(s.tree) if isinstance(n, ast.Assert)]
    assert not asked + asserted


def test_no_exception_is_swallowed(sources: list[Any]) -> None:
    def idle(statement: ast.stmt) -> bool:
        return isinstance(statement, ast.Pass) or (
            isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        )

    assert not [
        f"{s.name}:{n.lineno}"
        for s in sources
        for n in ast.walk(s.tree)
        if isinstance(n, ast.ExceptHandler) and (n.type is None or all(idle(b) for b in n.body))
    ]


def test_only_the_top_reexports(sources: list[Any]) -> None:
    inits = [s for s in sources if s.path.name == "__init__.py" and s.name != "__init__.py"]
    assert len(inits) >= 3
    more = {s.name: [type(n).__name__ for n in s.tree.body[1:]] for s in inits if len(s.tree.body) > 1}
    assert not more
    assert not [s.name for s in inits if ast.get_docstring(s.tree) is None]


def test_reference_implementations_know_only_numpy_and_torch(root) -> None:
    allowed = {"numpy", "torch", "math", "itertools", "functools", "collections", "dataclasses", "typing"}
    for path in sorted((root / "tests" / "reference").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        if path.name.startswith("test_"):
            continue  # the comparison itself imports both sides
        assert {n.split(".")[0] for n in names} <= allowed, path.name
