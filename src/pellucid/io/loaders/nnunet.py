"""A trained nnU-Net v2: network, preprocessing and windows from its plans, weights from the checkpoint of one fold."""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.core.errors import BadCard, MissingExtra, ModelError
from pellucid.core.model import Model
from pellucid.io.cardschema import ModelCard
from pellucid.io.loaders.nnunetcard import nnunet_card
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.trial import settled
from pellucid.io.modelform import Form
from pellucid.io.trust import code_digest, sha256_of
from pellucid.io.weights import fit_weights, read_state

_CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
_KEY = "network_weights"
_NETS = "dynamic_network_architectures.architectures."
_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
_MAX_BYTES = 2**26


@dataclass(frozen=True)
class Trained:
    """Where the files of a trained configuration are.

    Args:
        folder: with plans.json, named ``TRAINER__PLANS__CONFIGURATION``.
        checkpoint: of the fold that is read.
        folds: how many there are.
    """

    folder: Path
    checkpoint: Path
    folds: int

    @property
    def names(self) -> tuple[str, str, str]:
        """Trainer, plans and configuration, as the folder's name says them."""
        parts = self.folder.name.split("__")
        if len(parts) != 3:
            raise ModelError(
                f"expected a folder named TRAINER__PLANS__CONFIGURATION, got {self.folder.name[:60]}",
                "keep the name that nnU-Net gave it: it says which configuration was trained",
            )
        return parts[0], parts[1], parts[2]


class Channels(nn.Module):
    """Several images side by side as the channels of one network.

    Args:
        network: that takes them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        """The network on all of them.

        Args:
            images: "batch 1 *space" each.
        """
        return self.network(torch.cat(images, 1))


def find_trained(folder: Path) -> Trained:
    """The files of a trained nnU-Net: of the folder of a data set, of a configuration, or of a fold.

    Args:
        folder: any of the three.

    Raises:
        ModelError: no checkpoint, or several configurations.
    """
    inside = folder.parent if folder.name.startswith("fold_") and (folder.parent / "plans.json").is_file() else folder
    if not (inside / "plans.json").is_file():
        several = sorted(p.parent for p in folder.glob("*__*__*/plans.json"))
        if len(several) != 1:
            names = ", ".join(p.name for p in several) or "none"
            raise ModelError(f"expected one trained configuration of nnU-Net, got {names}", "give the folder of one")
        inside = several[0]
    folds = sorted(p for p in inside.glob("fold_*") if any((p / name).is_file() for name in _CHECKPOINTS))
    chosen = folder if folder in folds else next((p for p in folds if p.name == "fold_all"), None)
    fold = chosen or next(iter(folds), None)
    if fold is None:
        raise ModelError(f"{inside.name} holds no checkpoint", f"put fold_0/{_CHECKPOINTS[0]} into it")
    return Trained(inside, next(fold / n for n in _CHECKPOINTS if (fold / n).is_file()), len(folds))


def nnunet_digest(folder: Path) -> str:
    """What stands for the card in records: the plans and the description of the data set.

    Args:
        folder: as ``find_trained`` takes it.
    """
    inside = find_trained(folder).folder
    files = [inside / name for name in ("plans.json", "dataset.json") if (inside / name).is_file()]
    return code_digest({path.name: sha256_of(path) for path in files})


def load_nnunet(origin: Origin) -> Parts:
    """Build the network of the plans and fill it; nothing of the checkpoint but its tensors is used.

    Args:
        origin: the folder.

    Raises:
        BadCard: plans that do not say enough, or a network or step that is not repeated.
        MissingExtra: dynamic-network-architectures is not installed.
        Untrusted: the checkpoint holds more than tensors and numbers.
        WeightsMismatch: the weights do not fit the network of the plans.
    """
    trained = find_trained(origin.path)
    plans, dataset = _read(trained.folder / "plans.json"), _read(trained.folder / "dataset.json")
    _, _, name = trained.names
    configuration = _configuration(plans, name)
    card, doubts = nnunet_card(plans, dataset, configuration, trained.names)
    place = trained.checkpoint.relative_to(trained.folder).as_posix()
    card = origin.card or replace(card, model=replace(card.model, weights=place, sha256=sha256_of(trained.checkpoint)))
    if trained.folds > 1:
        doubts += (f"{trained.checkpoint.parent.name} of {trained.folds} trained folds: nnU-Net averages all of them",)
    inputs = [spec for spec in card.inputs if spec.rank]
    network = _network(configuration, sum(spec.channels for spec in inputs), _heads(dataset))
    notes = fit_weights(network, read_state(trained.checkpoint, Form.STATE, _KEY), trained.checkpoint.name)
    module = (Channels(network) if len(inputs) > 1 else network).eval().to(origin.device)
    found = settled(Model(module, _tried(card, configuration), card.output_spec))
    return Parts(
        module, card.inputs, card.output_spec, found.can, "positional", "not needed",
        (*doubts, *notes, *found.notes), card, found.channels,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadCard(f"{path.name} is larger than {_MAX_BYTES} bytes", "fetch the trained folder again")
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadCard(f"{path.name} cannot be read: {type(error).__name__}", "fetch the trained folder again") from None
    if not isinstance(told, dict):
        raise BadCard(f"{path.name} is no table", "fetch the trained folder again")
    return told


def _configuration(plans: Mapping[str, Any], name: str, deep: int = 0) -> dict[str, Any]:
    """A configuration of the plans with what it inherits; one that needs another network's output is refused."""
    every = plans.get("configurations")
    if not isinstance(every, Mapping) or not isinstance(every.get(name), Mapping) or deep > len(every):
        there = ", ".join(map(str, every)) if isinstance(every, Mapping) else "none"
        raise BadCard(f"plans.json has no configuration {name!r}", f"it has: {there[:200]}")
    own = dict(every[name])
    parent = own.pop("inherits_from", None)
    found = {**_configuration(plans, str(parent), deep + 1), **own} if parent else own
    if found.get("previous_stage"):
        raise BadCard(
            f"{name} is the second stage of a cascade: its input is another network's segmentation",
            "explain the stage before it, or a configuration of one stage (3d_fullres)",
        )
    return found


def _tried(card: ModelCard, configuration: Mapping[str, Any]) -> tuple[Any, ...]:
    """The inputs with a size that every stage of the network can halve, for the trial."""
    strides = _architecture(configuration)[1]["strides"]
    steps = [1] * len(configuration["patch_size"])
    for stride in strides:
        each = stride if isinstance(stride, list) else [stride] * len(steps)
        steps = [a * int(b) for a, b in zip(steps, each, strict=True)]
    return tuple(replace(spec, multiple=max(steps)) for spec in card.inputs)


def _heads(dataset: Mapping[str, Any]) -> int:
    """Output channels: a region each where classes overlap, else a class each with the background."""
    labels = {k: v for k, v in dict(dataset.get("labels") or {}).items() if k != "ignore"}
    overlapping = any(isinstance(v, list) and len(v) > 1 for v in labels.values())
    return len(labels) - 1 if overlapping else len(labels)


def _architecture(configuration: Mapping[str, Any]) -> tuple[str, dict[str, Any], Sequence[str]]:
    """Name, arguments, and which of them are names of classes; older plans say it in other words."""
    told = configuration.get("architecture")
    if isinstance(told, Mapping):
        return str(told["network_class_name"]), dict(told["arch_kwargs"]), list(told.get("_kw_requires_import", ()))
    rank = len(configuration["patch_size"])
    kernels = configuration["conv_kernel_sizes"]
    least, most = int(configuration["UNet_base_num_features"]), int(configuration["unet_max_num_features"])
    arguments: dict[str, Any] = {
        "n_stages": len(kernels),
        "features_per_stage": [min(least * 2**i, most) for i in range(len(kernels))],
        "conv_op": f"torch.nn.Conv{rank}d",
        "kernel_sizes": kernels,
        "strides": configuration["pool_op_kernel_sizes"],
        "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
        "conv_bias": True,
        "norm_op": f"torch.nn.InstanceNorm{rank}d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    name = str(configuration["UNet_class_name"])
    blocks = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments[blocks] = configuration["n_conv_per_stage_encoder"]
    return f"{_NETS}unet.{name}", arguments, ("conv_op", "norm_op", "nonlin")


def _network(configuration: Mapping[str, Any], channels: int, heads: int) -> nn.Module:
    try:
        name, arguments, classes = _architecture(configuration)
    except (KeyError, TypeError, ValueError) as error:
        raise BadCard(
            f"plans.json does not say the network ({type(error).__name__}: {error})", "use nnU-Net v2"
        ) from None
    place, _, short = name.rpartition(".")
    if not f"{place}.".startswith(_NETS) or short not in _NETWORKS:
        raise BadCard(f"the plans name a network that is not known: {name[:100]}", f"known: {', '.join(_NETWORKS)}")
    try:
        made = getattr(importlib.import_module(place), short)
    except (ImportError, AttributeError) as error:
        raise MissingExtra(
            "a trained nnU-Net needs dynamic-network-architectures", "pip install 'pellucid[nnunet]'"
        ) from error
    given = {k: _class(v) if k in classes and v is not None else v for k, v in arguments.items()}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # the heads of deep supervision are built and filled; the last one alone answers, as when nnU-Net predicts
            return made(input_channels=channels, num_classes=heads, deep_supervision=False, **given)
    except Exception as error:  # whatever wrong numbers in the plans make the package raise
        reason = " ".join(str(error).split())[:150]
        raise BadCard(
            f"the network of the plans cannot be built: {reason}", "fetch the trained folder again"
        ) from error


def _class(name: object) -> type[nn.Module]:
    """A building block of torch by its name; nothing else is imported because a file says so."""
    place, _, short = str(name).rpartition(".")
    found = getattr(importlib.import_module("torch.nn"), short, None)
    if not (place == "torch.nn" or place.startswith("torch.nn.modules.")) or not isinstance(found, type):
        raise BadCard(f"the plans name {str(name)[:80]!r}, which is no building block of torch", "use nnU-Net's plans")
    return found
