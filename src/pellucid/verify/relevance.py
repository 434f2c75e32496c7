"""What is compared of LRP beyond zennit's rules, and where its peers stop or lose relevance without a word."""

from collections.abc import Callable

from pellucid.core.explanation import Attribution
from pellucid.core.probe import Probe
from pellucid.verify.demonstrations import Demonstration, Found, Said
from pellucid.verify.plan import DENSE_3D, UNET_3D, Comparison
from pellucid.verify.subjects import Prepared, Subject
from pellucid.workbench.registry import make_explainer

_FILM = (40, 48)
PLAIN = Subject("plain-2d", "film", _FILM, layer="conv2")
RESIDUAL = Subject("residual-2d", "film", _FILM, layer="conv2")
NORMED = Subject("normed-2d", "film", _FILM, layer="conv2")
_MUCH, _HARDLY = 0.1, 1e-3  # of the score

RELEVANCES: tuple[Comparison, ...] = (Comparison("LRP:rule=epsilon,epsilon=1e-9", "captum", "LRP", (PLAIN,)),)


def _refused(found: Found) -> Said:
    return bool(found["refused"]), "LRP raises: a layer of the network has no rule"


def _lost(found: Found) -> Said:
    share = float((found["sum"] / found["score"]).mean())
    return abs(share - 1) > _MUCH, f"{share:.2f} of the score arrives at the image, without a word"


def _told(prepared: Prepared) -> Said:
    """Every bit of relevance arrives or stands in the ledger."""
    answer = _answer("LRP", prepared)
    if answer.ledger is None or answer.difference is None:
        return False, "there is no ledger"
    missing = float((answer.ledger.unexplained / answer.difference).abs().max())
    return missing < _HARDLY, f"a map, and a ledger that leaves {missing:.0e} of the score unexplained"


def _arrives(rule: str) -> Callable[[Prepared], Said]:
    def check(prepared: Prepared) -> Said:
        answer = _answer(rule, prepared)
        missed = 1.0 if answer.gap is None else float(answer.gap.max())
        return missed < _HARDLY, f"all of the score arrives, up to {missed:.0e}"

    return check


def _answer(method: str, prepared: Prepared) -> Attribution:
    inputs = {prepared.model.primary: prepared.x}
    answer = make_explainer(method)(Probe(prepared.model, inputs, prepared.target, scene=prepared.scene))
    if not isinstance(answer, Attribution):
        raise TypeError(f"{method} answered with a {type(answer).__name__}")
    return answer


LOSSES: tuple[Demonstration, ...] = (
    Demonstration("B14", "captum", "LRP", DENSE_3D, _refused, _told),
    Demonstration("B14", "captum", "LRP", UNET_3D, _refused, _told),
    Demonstration("B17", "zennit", "conservation", RESIDUAL, _lost, _arrives("LRP:rule=epsilon")),
    Demonstration("B17", "zennit", "conservation", NORMED, _lost, _arrives("LRP:rule=epsilon")),
)
