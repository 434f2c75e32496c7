"""What goes into a loader and what comes out of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pellucid.core.model import Abilities, OutputSpec
from pellucid.core.prepare import InputSpec
from pellucid.io.cardschema import ModelCard
from pellucid.io.modelform import Form
from pellucid.io.trust import Gate, Trust

NO_CARD = "no model card: what the intensities, labels and the output mean is not known"


@dataclass(frozen=True)
class Origin:
    """A model to be loaded.

    Args:
        path: file of the weights, or folder of the bundle.
        form: of ``path``.
        folder: of the card; that of ``path`` where there is none.
        gate: whether code may run.
        card: the model card.
        code: SHA-256 of the card, by its name; loaders add the files that would run.
        device: where the module goes.
    """

    path: Path
    form: Form
    folder: Path
    gate: Gate
    card: ModelCard | None = None
    code: Mapping[str, str] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def name(self) -> str:
        """For messages."""
        return self.card.model.name if self.card is not None else self.path.name


@dataclass(frozen=True, eq=False)
class Parts:
    """A loaded model before it is put together.

    Args:
        module: in evaluation mode, on its device.
        inputs: of the card, or read from the file.
        output: likewise.
        can: abilities.
        call: how inputs are passed.
        trust: why its code was allowed to run.
        notes: doubts that every explanation must carry.
        card: made from a bundle's metadata.
        channels: of the head's output; None where the module could not be tried.
    """

    module: nn.Module
    inputs: tuple[InputSpec, ...]
    output: OutputSpec
    can: Abilities = field(default_factory=Abilities)
    call: Literal["positional", "keyword", "dict"] = "positional"
    trust: Trust = "not needed"
    notes: tuple[str, ...] = ()
    card: ModelCard | None = None
    channels: int | None = None
