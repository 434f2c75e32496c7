"""The usual panel names methods there are, each once."""

from pellucid.guide.panel import USUAL, USUAL_METRICS
from pellucid.workbench.registry import explainers, metrics


def test_the_usual_panel_is_of_methods_there_are() -> None:
    assert set(USUAL) <= set(explainers())
    assert len(set(USUAL)) == len(USUAL)
    families = {explainers()[name].card.family for name in USUAL}
    assert len(families) >= 4  # each answers another question


def test_the_usual_metrics_are_there_and_ask_different_questions():
    assert set(USUAL_METRICS) <= set(metrics())
    assert list(USUAL_METRICS) == sorted(set(USUAL_METRICS))
    assert len({metrics()[name].card.measures for name in USUAL_METRICS}) >= 4
