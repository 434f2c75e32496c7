"""A folder as the Hugging Face hub lays it out: an installed architecture, its configuration and its weights."""

import importlib
import json
import types
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.core.errors import BadCard, MissingExtra, ModelError, WeightsMismatch
from pellucid.core.model import Model
from pellucid.io.loaders.huggingfacecard import huggingface_card
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.trial import settled
from pellucid.io.trust import code_digest, sha256_of

WEIGHTS = "model.safetensors"
_CONFIG, _PROCESSOR, _README = "config.json", "preprocessor_config.json", "README.md"
_MAX_BYTES = 2**22
_AUTO = "transformers.models.auto"
_TASKS = {
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES": "classification",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES": "segmentation",
}
_ELSE = "export it to TorchScript, torch.export or ONNX, or write a model.toml with a factory"


class Logits(nn.Module):
    """The scores of a network of transformers alone, those of a segmentation brought to the size of the image.

    Args:
        network: whose answer has ``logits``.
        dense: whether they have places.
    """

    def __init__(self, network: nn.Module, dense: bool) -> None:
        super().__init__()
        self.network, self.dense = network, dense

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch.

        Args:
            image: "batch channel row column".
        """
        logits = self.network(pixel_values=image, return_dict=True).logits
        if not self.dense or logits.shape[2:] == image.shape[2:]:
            return logits
        # as the processor does before it takes the largest class
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)


def huggingface_digest(folder: Path) -> str:
    """What stands for the card in records: how the network is built and the image prepared.

    Args:
        folder: of the model.
    """
    files = [folder / name for name in (_CONFIG, _PROCESSOR) if (folder / name).is_file()]
    return code_digest({path.name: sha256_of(path) for path in files})


def load_huggingface(origin: Origin) -> Parts:
    """Build the network by its installed class and fill it from safetensors; code of the folder is never run.

    Args:
        origin: the folder.

    Raises:
        ModelError: an architecture of its own, of timm, quantized, or of another task.
        MissingExtra: transformers is not installed.
        WeightsMismatch: the weights do not fill the network, or are no safetensors file.
        BadCard: a file that says something else than it may.
    """
    folder = origin.path
    config = _read(folder / _CONFIG)
    processor = _read(folder / _PROCESSOR) if (folder / _PROCESSOR).is_file() else None
    _check_plain(config)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            f"expected {WEIGHTS} in the folder, got none", "save it with save_pretrained (one file, safetensors)"
        )
    name, task = _architecture(config)
    network = _network(folder, name, config)
    made, doubts = huggingface_card(config, processor, _front(folder / _README), task, folder.name)
    made = replace(made, model=replace(made.model, weights=WEIGHTS, sha256=sha256_of(folder / WEIGHTS)))
    card = origin.card or made
    module = Logits(network, task == "segmentation").eval().to(origin.device)
    found = settled(Model(module, card.inputs, card.output_spec))
    return Parts(
        module, card.inputs, card.output_spec, found.can, "positional", "not needed",
        (*doubts, *found.notes), card, found.channels,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes()[: _MAX_BYTES + 1]
        told = json.loads(text.decode("utf-8")) if len(text) <= _MAX_BYTES else None
    except (ValueError, OSError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise BadCard(f"{path.name} is no table in JSON of at most {_MAX_BYTES} bytes", "fetch the folder again")
    return told


def _check_plain(config: Mapping[str, Any]) -> None:
    """Refuse what would run other people's code, fetch something, or is no plain network."""
    if "auto_map" in config:
        raise ModelError("the model brings code of its own (auto_map), which is never run", _ELSE)
    if "pretrained_cfg" in config or "architecture" in config:
        raise ModelError("a model of timm, which is not read", _ELSE)
    if "quantization_config" in config:
        raise ModelError("the weights are quantized, so that gradients would not be those of the model", _ELSE)
    if config.get("use_pretrained_backbone") or config.get("use_timm_backbone"):
        raise ModelError("the model fetches a backbone when it is built, and nothing is fetched here", _ELSE)


def _architecture(config: Mapping[str, Any]) -> tuple[str, str]:
    """The class that the installed transformers has for this configuration, and its task."""
    kind, named = config.get("model_type"), config.get("architectures")
    name = str(named[0]) if isinstance(named, list) and named else ""
    tables = _transformers(f"{_AUTO}.modeling_auto")
    for table, task in _TASKS.items():
        known = getattr(tables, table, {}).get(kind, ())
        if name in ((known,) if isinstance(known, str) else known):
            return name, task
    raise ModelError(
        f"the architecture {name[:60] or 'of no name'!r} ({str(kind)[:40]}) is no classifier or segmentation of images "
        "that the installed transformers has",
        f"install a newer transformers, or {_ELSE}",
    )


def _network(folder: Path, name: str, config: Mapping[str, Any]) -> nn.Module:
    made = getattr(_transformers("transformers"), name)
    settings = _transformers(f"{_AUTO}.configuration_auto").CONFIG_MAPPING[str(config["model_type"])]
    try:
        with _silent(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network, found = made.from_pretrained(
                folder,
                config=settings.from_dict(dict(config)),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
            )
    except Exception as error:  # whatever transformers raises for a folder that does not fit
        reason = " ".join(str(error).split())[:160]
        raise WeightsMismatch(f"the network {name} cannot be filled: {reason}", "fetch the folder again") from error
    missing, left = (sorted(map(str, found[key])) for key in ("missing_keys", "unexpected_keys"))
    if missing or left:
        raise WeightsMismatch(
            f"the weights do not fit {name}: {len(missing)} missing ({', '.join(missing[:3])}), {len(left)} left over "
            f"({', '.join(left[:3])})",
            "the file is of another model, or of its body without the classifier",
        )
    return network


@contextmanager
def _silent() -> Generator[None, None, None]:
    """Without the progress bar and the reports of transformers, which would go onto the user's screen."""
    logs = _transformers("transformers.utils.logging")
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logs.CRITICAL)
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def _transformers(module: str) -> types.ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            "a folder of the Hugging Face layout needs transformers", "pip install 'pellucid[huggingface]'"
        ) from error


def _front(path: Path) -> Mapping[str, Any]:
    """The head of the model's README, between its two lines of dashes; empty where it has none."""
    if not path.is_file():
        return {}
    with path.open("rb") as stream:
        text = stream.read(_MAX_BYTES).decode("utf-8", errors="replace")
    parts = text.split("\n---", 1) if text.startswith("---") else []
    yaml = importlib.import_module("yaml")  # comes with transformers
    try:
        told = yaml.safe_load(parts[0].lstrip("-")) if parts else {}
    except yaml.YAMLError:
        return {}
    return told if isinstance(told, dict) else {}
