"""What an engine is built from."""

from collections.abc import Callable
from dataclasses import dataclass

from pellucid.core.model import Inputs, Model


@dataclass(frozen=True, eq=False)
class Sample:
    """A model with inputs of the shape to come.

    Args:
        model: never changed.
        inputs: "batch channel *space" by name; only shapes and number formats matter.
        calibration: makes inputs as they will come, for an engine that must know their range.
    """

    model: Model
    inputs: Inputs
    calibration: Callable[[], Inputs]
