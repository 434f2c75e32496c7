"""The usual panel names methods there are, each once."""

from pellucid.guide.panel import USUAL
from pellucid.workbench.registry import explainers


def test_the_usual_panel_is_of_methods_there_are() -> None:
    assert set(USUAL) <= set(explainers())
    assert len(set(USUAL)) == len(USUAL)
    families = {explainers()[name].card.family for name in USUAL}
    assert len(families) >= 4  # each answers another question
