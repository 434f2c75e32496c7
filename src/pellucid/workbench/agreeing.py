"""How alike the maps of several methods are on one case."""

from collections.abc import Sequence

import numpy as np

from pellucid.core.explanation import Explanation
from pellucid.metrics.likeness import TOP, pairwise, rank_correlation, top_overlap
from pellucid.show.answers import Agreement, Answers
from pellucid.show.rules import withheld_words
from pellucid.show.words import number


def agreement(explanations: Sequence[Explanation], names: Sequence[str], silences: Sequence[str]) -> Agreement:
    """Compare every pair of maps of one target by ranks and by their strongest tenth.

    Of each map its positive part, so that signed and unsigned maps answer the same question; averaged over blocks of
    the coarser native cell of the two, on the network's grid. A map that shows nothing is left out.

    Args:
        explanations: of one image and one target, at least one.
        names: of their methods.
        silences: why a map shows nothing; empty where it does.
    """
    kept = [(e, n) for e, n, why in zip(explanations, names, silences, strict=True) if not why]
    left_out = [(n, why) for n, why in zip(names, silences, strict=True) if why]
    positive = [np.maximum(e.attribution.collapsed()[0].cpu().double().numpy(), 0) for e, _ in kept]
    cells = [e.attribution.cell for e, _ in kept]
    alike = pairwise(positive, cells, {"rank": rank_correlation, "overlap": top_overlap})
    said = explanations[0].prediction
    notes = (
        "positive parts of the maps, averaged over the coarser native cell of each pair",
        f"two maps that know nothing of each other share about {number(100 * TOP)}% of their strongest tenth; a dash "
        "stands where the coarser map has too few cells to compare",
    )
    return Agreement(
        explanations[0].provenance.target,
        tuple(name for _, name in kept),
        tuple(tuple(r) for r in alike["rank"]),
        tuple(tuple(r) for r in alike["overlap"]),
        tuple(left_out),
        notes,
        withheld_words(explanations[0]) if said is not None and said.below_threshold else "",
    )


def agreements(
    explanations: Sequence[Explanation], names: Sequence[str], read: Sequence[Answers]
) -> tuple[Agreement, ...]:
    """The same for every target with at least two maps, as they were ``read``."""
    found = []
    for target in dict.fromkeys(e.provenance.target for e in explanations):
        every = zip(explanations, names, read, strict=True)
        chosen = [(e, n, a.silence) for e, n, a in every if e.provenance.target == target]
        if len(chosen) > 1:
            found.append(agreement(*(list(column) for column in zip(*chosen, strict=True))))
    return tuple(found)
