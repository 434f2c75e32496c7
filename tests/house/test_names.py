"""The face of the package, and what every declared method and metric owes its reader."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType

import pellucid
from pellucid.core.card import Card, Declared, MetricCard
from pellucid.core.metric import Metric


def keys(root: Path) -> set[str]:
    """The keys of the bibliography."""
    return set(re.findall(r"^@\w+\{([^,\s]+),", (root / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))


def test_the_face_is_sorted_and_true() -> None:
    names = pellucid.__all__
    assert list(names) == sorted(set(names))
    assert 15 <= len(names) <= 30
    missing = [n for n in names if n not in vars(pellucid)]
    assert not missing
    extra = {
        n
        for n, value in vars(pellucid).items()
        if not n.startswith("_") and not isinstance(value, ModuleType) and n not in names
    }
    assert not extra


def test_explain_stays_a_function_when_its_room_is_imported() -> None:
    importlib.import_module("pellucid.explain.cam")
    assert inspect.isfunction(pellucid.explain)


def test_all_modules_import(modules: dict[str, ModuleType]) -> None:
    assert {"pellucid.core.probe", "pellucid.explain.cam", "pellucid.metrics.faithfulness.curves"} <= set(modules)


def test_the_first_methods_and_metrics_are_there(declared: dict[str, type[Declared]]) -> None:
    methods = {"Saliency", "InputXGradient", "IntegratedGradients", "GradCAM", "HiResCAM", "Occlusion"}
    metrics = {"DeletionAUC", "InsertionAUC", "HitRate", "IoU", "Dice", "ModelParameterRandomization"}
    assert methods | metrics <= set(declared)


def test_declared_classes_are_final_and_frozen(declared: dict[str, type[Declared]]) -> None:
    for name, cls in declared.items():
        assert dataclasses.is_dataclass(cls), name
        assert cls.__dataclass_params__.frozen, name
        assert not inspect.isabstract(cls), name
        assert not cls.__subclasses__(), f"{name} is final"


def test_concrete_classes_have_no_children(modules: dict[str, ModuleType]) -> None:
    own = {c for m in modules.values() for c in vars(m).values() if inspect.isclass(c) and c.__module__ in modules}
    children = {
        f"{c.__name__}({base.__name__})"
        for c in own
        for base in c.__bases__
        if base in own and not inspect.isabstract(base) and not issubclass(base, Exception | Declared)
    }
    assert not children


def test_cards_are_complete(declared: dict[str, type[Declared]], root: Path) -> None:
    known = keys(root)
    for name, cls in declared.items():
        card = cls.card
        assert isinstance(card, MetricCard if issubclass(cls, Metric) else Card), name
        for field in ("shows", "caution", "equation", "cost_note"):
            assert len(getattr(card, field)) > 3, f"{name}.{field}"
            assert "\n" not in getattr(card, field), f"{name}.{field}"
        assert card.source in known, f"{name}: {card.source} is not in references.bib"
        assert card.space <= {2, 3}, name
        assert card.space, name
        assert card.tasks, name


def test_hyperparameters_are_explained_and_optional(declared: dict[str, type[Declared]]) -> None:
    for name, cls in declared.items():
        for parameter in cls.parameters():
            assert len(parameter.help) > 3, f"{name}.{parameter.name} has no help"
        assert cls() == cls(), f"{name} needs a default for every hyperparameter"


def test_entries_of_the_bibliography_are_complete(root: Path) -> None:
    text = (root / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"(?m)^@", text)[1:]
    assert len(entries) == len(keys(root)) >= 14
    for entry in entries:
        for field in ("author", "title", "year"):
            assert re.search(rf"(?m)^\s*{field}\s*=", entry), entry.splitlines()[0]
        assert re.search(r"(?m)^\s*(journal|booktitle|eprint)\s*=", entry), entry.splitlines()[0]
