"""One declaration: it registers, it is found by name, and it lists its parameters."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pytest

from pellucid.core.card import GRADIENTS, Ask, Card, Cost, Declared, Family, find_declared, shared_cost
from pellucid.core.errors import DeclarationError, UnknownName


class Method(Declared, abstract="toy method"):
    card: ClassVar[Card]


CARD = Card(Family.CAM, "s", "c", "e", "src", "n", frozenset(), signed=True)


@dataclass(frozen=True)
class LayerPlusPlus(Method):
    layer: Annotated[str | None, "which layer"] = None
    steps: Annotated[int, "how many"] = 8
    plain: float = 0.5
    card: ClassVar[Card] = CARD


def test_defining_a_class_registers_it_in_its_own_registry() -> None:
    assert Method.registry == {"LayerPlusPlus": LayerPlusPlus}
    assert Method.kind == "toy method"


@pytest.mark.parametrize("name", ["LayerPlusPlus", "layerplusplus", "layer-plus-plus", "Layer_Plus_Plus", "layer++"])
def test_a_name_is_found_in_any_spelling(name) -> None:
    assert find_declared(Method, name) is LayerPlusPlus


def test_a_name_that_is_not_there_is_answered_by_those_that_are() -> None:
    with pytest.raises(UnknownName, match=r"no toy method named 'GradCam'\. there are: LayerPlusPlus"):
        find_declared(Method, "GradCam")


def test_parameters_come_from_the_annotated_fields() -> None:
    found = [(p.name, p.default, p.help) for p in LayerPlusPlus.parameters()]
    assert found == [("layer", None, "which layer"), ("steps", 8, "how many"), ("plain", 0.5, "")]
    assert [p.type for p in LayerPlusPlus.parameters()] == [str | None, int, float]
    assert LayerPlusPlus(steps=3).settings() == {"layer": None, "steps": 3, "plain": 0.5}


def test_a_class_without_a_card_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"Bare has no card\. declare one"):

        class Bare(Method):
            pass


def test_a_second_class_of_a_name_is_refused_and_the_first_stays() -> None:
    def again():
        class LayerPlusPlus(Method):
            card: ClassVar[Card] = CARD

        return LayerPlusPlus

    with pytest.raises(DeclarationError, match="second toy method named LayerPlusPlus"):
        again()
    assert Method.registry["LayerPlusPlus"] is LayerPlusPlus


def test_defining_the_same_class_again_is_no_second_one() -> None:
    """A notebook cell is run twice."""

    def cell():
        class Cell(Method):
            card: ClassVar[Card] = CARD

        return Cell

    first, second = cell(), cell()
    assert first is not second
    assert Method.registry.pop("Cell") is second


def test_costs_add_and_multiply() -> None:
    assert Cost(2, 1) + Cost(3, 4) == Cost(5, 5)
    assert Cost(2, 1) * 3 == Cost(6, 3)


@pytest.mark.parametrize("ask", list(Ask))
def test_the_shared_pass_costs_one_forward_and_a_backward_for_gradients(ask) -> None:
    assert shared_cost(frozenset({ask})) == Cost(1, int(ask in GRADIENTS))
    assert shared_cost(frozenset(Ask)) == Cost(1, 1)
    assert shared_cost(frozenset()) == Cost()
