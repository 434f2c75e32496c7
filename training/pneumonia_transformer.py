"""Train the demo's vision transformer on the films, parts and draws of ``pneumonia.py``.

It is in the demo so that methods that read attention have a trained network; the convolutional one is better.
"""

from common import SEEDS, Recipe, options, publish
from pneumonia import adults, baselines, describe, evaluate, fit, parts_of

from pellucid.demo.transformer import pneumonia_transformer

RECIPE = Recipe("pneumonia_transformer", pneumonia_transformer, iterations=500, peak_rate=1e-3)


def main() -> None:
    """Train three seeds, ship the best on validation."""
    chosen = options(RECIPE.iterations)
    parts, dropped = parts_of(chosen.data)
    nih = adults(chosen.data)
    trained = (fit(seed, parts["training"], chosen, RECIPE) for seed in SEEDS)
    runs = [(run, evaluate(run, parts, nih)) for run in trained]
    publish(RECIPE, runs, "auc", describe(parts, dropped) | {"baselines": baselines(parts)})


if __name__ == "__main__":
    main()
