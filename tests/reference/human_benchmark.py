"""Leave one reader out, after Saporta et al. (2022): everyone against the majority of the others."""

import numpy as np


def human_benchmark(marked, readers, measure, ties):
    """Mean over readers left out of the map's measure less the reader's.

    Args:
        marked: mask of the map.
        readers: masks.
        measure: function of a mask and a truth.
        ties: whether what half of the others marked is in.
    """
    readers = [np.asarray(r, dtype=bool) for r in readers]
    gaps = []
    for i, reader in enumerate(readers):
        others = [r for j, r in enumerate(readers) if j != i]
        votes, half = np.sum(others, axis=0), len(others) / 2
        truth = (votes >= half) if ties else (votes > half)
        gaps.append(measure(np.asarray(marked, dtype=bool), truth) - measure(reader, truth))
    return float(np.mean(gaps))


def iou(one, truth):
    """Of two sets."""
    return (one & truth).sum() / (one | truth).sum()


def dice(one, truth):
    """Of two sets."""
    return 2 * (one & truth).sum() / (one.sum() + truth.sum())
