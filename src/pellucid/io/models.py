"""From a file or folder to a Model: by its content, with its card, and without running code nobody vouched for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isfinite
from pathlib import Path

import torch
from torch import Tensor

from pellucid.core.errors import BadCard, BadOption, GoldenVectorMismatch, WeightsMismatch
from pellucid.core.image import Image, Modality
from pellucid.core.model import Identity, Model
from pellucid.core.prepare import prepare
from pellucid.io.cardschema import Golden, ModelCard
from pellucid.io.loaders.bundle import bundle_digest, bundle_weights, load_bundle
from pellucid.io.loaders.exported import load_exported
from pellucid.io.loaders.huggingface import WEIGHTS, huggingface_digest, load_huggingface
from pellucid.io.loaders.nnunet import find_trained, load_nnunet, nnunet_digest
from pellucid.io.loaders.onnx import load_onnx
from pellucid.io.loaders.parts import Origin, Parts
from pellucid.io.loaders.python import load_python
from pellucid.io.loaders.torchscript import load_torchscript
from pellucid.io.modelcard import CARD_NAME, read_card
from pellucid.io.modelform import Form, detect_form, folder_form
from pellucid.io.references import References, read_references
from pellucid.io.trust import Gate, Trust, open_gate, sha256_of

ReadImage = Callable[[Path, Modality | None, int | None], Image]
Vectors = Mapping[str, tuple[float, ...]]

_LOADERS: Mapping[Form, Callable[[Origin], Parts]] = {
    Form.TORCHSCRIPT: load_torchscript,
    Form.EXPORTED: load_exported,
    Form.ONNX: load_onnx,
    Form.BUNDLE: load_bundle,
    Form.NNUNET: load_nnunet,
    Form.HUGGINGFACE: load_huggingface,
}
_CARDS: Mapping[Form, Callable[[Path], str]] = {
    Form.BUNDLE: bundle_digest,
    Form.NNUNET: nnunet_digest,
    Form.HUGGINGFACE: huggingface_digest,
}
_ABILITIES = {
    "gradient": "gradients of its output: saliency, path and class activation methods",
    "hooks": "layers read by name: class activation methods",
    "edits": "layers changed on the way: ablation of channels, concept tests",
    "rules": "operations replaced: guided backpropagation, relevance propagation",
    "batch": "any batch size",
}


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model with everything that came with it.

    Args:
        model: ready to be explained.
        card: of the model; None where a bare file was loaded.
        references: display scale and null by method and label.
        folder: of the card or the file; golden vectors lie there.
        form: in which it came.
        trust: why its code was allowed to run.
        notes: doubts that every explanation of it must carry.
    """

    model: Model
    card: ModelCard | None
    references: References
    folder: Path
    form: Form = Form.CARD
    trust: Trust = "not needed"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class GoldenResult:
    """One golden vector of the card against what the model gives.

    Args:
        file: the image, or several by input.
        passed: whether the largest deviation is within the tolerance.
        deviation: largest difference, in the head's unit.
        tolerance: that the card allows.
    """

    file: str
    passed: bool
    deviation: float
    tolerance: float


def load_model(
    path: str | Path, trust_code: bool = False, device: str = "cpu", allow_list: Path | None = None
) -> LoadedModel:
    """Load a model card, a folder with one, a MONAI bundle, a trained nnU-Net, a Hugging Face folder, or a file.

    Args:
        path: of the folder, or of a file of TorchScript, torch.export or ONNX; what it is, is seen from its content.
        trust_code: let code that comes with the model run.
        device: such as ``cpu`` or ``cuda``.
        allow_list: file of digests whose code may run; None: ``PELLUCID_TRUSTED`` or the user's own list.

    Raises:
        BadCard: the card, or the file without one, does not say enough, or contradicts itself.
        WeightsMismatch: weights that do not fit, or are not those of the card.
        Untrusted: code would run; said before anything of it is imported.
        MissingExtra: the form needs a package that is not installed.
        ModelError: any other reason why the file cannot be used.
    """
    place, gate, target = Path(path), open_gate(trust_code, allow_list), _device(device)
    form = detect_form(place)
    if form is Form.CARD:
        return _with_card(place / CARD_NAME if place.is_dir() else place, gate, target)
    if form not in _LOADERS:
        raise BadCard(
            f"{place.name} holds weights only: nothing says which network they belong to",
            f"write a {CARD_NAME} beside it (docs/model_card.md)",
        )
    folder = place if place.is_dir() else place.parent
    digest = _weights_digest(place, form)
    parts = _LOADERS[form](Origin(place, form, folder, gate, device=target))
    card_digest = _CARDS[form](place) if form in _CARDS else ""
    return _put_together(parts, parts.card, folder, form, (digest, card_digest))


def describe_abilities(model: Model) -> list[tuple[str, bool, str]]:
    """What a model can do and why not: (ability, yes or no, what it allows or why it lacks).

    Example:
        >>> import torch
        >>> describe_abilities(Model(torch.nn.Identity()))[0][:2]
        ('gradient', True)
    """
    can = model.can
    has = {"gradient": can.gradient, "hooks": can.hooks, "edits": can.edits, "rules": can.rules}
    has["batch"] = can.batch is None
    return [(name, has[name], what if has[name] else can.why.get(name, what)) for name, what in _ABILITIES.items()]


def run_golden(loaded: LoadedModel, read_image: ReadImage | None = None) -> list[GoldenResult]:
    """Give the model the card's golden inputs, prepared as any other, and compare what comes out.

    A difference here means that the image is read or prepared, or the network built, otherwise than when the card was
    written. Bad at: inputs that are unlike the golden ones.

    Args:
        loaded: with its card; without one there is nothing to compare.
        read_image: called with path, modality and index; None: the reader of Pellucid.

    Raises:
        BadCard: a golden file is missing or was changed, or the card expects another number of values.
    """
    if loaded.card is None:
        return []
    reader = read_image or _default_reader()
    return [_compare(loaded, loaded.card, golden, reader) for golden in loaded.card.golden]


def require_golden(loaded: LoadedModel, read_image: ReadImage | None = None) -> list[GoldenResult]:
    """As ``run_golden``; a model that fails one explains nothing.

    Raises:
        GoldenVectorMismatch: with the worst deviation.
    """
    results = run_golden(loaded, read_image)
    failed = [r for r in results if not r.passed]
    if failed:
        worst = max(failed, key=lambda r: r.deviation if isfinite(r.deviation) else inf)
        raise GoldenVectorMismatch(
            f"the model gives other values than its card promises: {len(failed)} of {len(results)} golden vectors "
            f"fail, {worst.file} by {worst.deviation:.3g} (allowed {worst.tolerance:.3g} {loaded.model.output.unit})",
            "do not use its explanations: compare package versions and the inputs of the card with its makers' code",
        )
    return results


def head_output(loaded: LoadedModel, images: Mapping[str, Image], values: Vectors | None = None) -> Tensor:
    """The head's output for images as read (and vectors), prepared as the card says: what a golden vector records.

    Args:
        loaded: the model.
        images: by input name.
        values: of inputs that are plain vectors, by input name.
    """
    model, vectors = loaded.model, values or {}
    inputs = {
        s.name: prepare(images[s.name], s).tensor[None] if s.rank else torch.tensor([vectors[s.name]])
        for s in model.inputs
    }
    with model.held(), torch.no_grad():
        return model({k: v.to(model.device) for k, v in inputs.items()}).float().cpu()


def _compare(loaded: LoadedModel, card: ModelCard, golden: Golden, reader: ReadImage) -> GoldenResult:
    images = {}
    for name, file in golden.files(card).items():
        path = loaded.folder / file
        if not path.is_file() or sha256_of(path) != golden.digests(card)[name]:
            raise BadCard(
                f"golden.file: {file} is {'not the file that the card names' if path.is_file() else 'missing'}",
                "fetch the model's folder again, whole",
            )
        images[name] = reader(path, golden.modality, golden.index)
    output = head_output(loaded, images, golden.values)[0]
    means = output.flatten(1).mean(1) if output.ndim > 1 else output
    if len(means) != len(golden.expected):
        raise BadCard(
            f"golden.expected: the card has {len(golden.expected)} values, the head {len(means)}",
            "give one for each channel",
        )
    pairs = [(float(m), e) for m, e in zip(means, golden.expected, strict=True)]
    for point in golden.at:
        place = (point.channel, *point.index)
        if len(place) != output.ndim or any(i >= n for i, n in zip(place, output.shape, strict=True)):
            raise BadCard(f"golden.at: {list(place)} is outside the output {tuple(output.shape)}", "correct the index")
        pairs.append((float(output[place]), point.value))
    deviations = [abs(got - wanted) for got, wanted in pairs]
    worst = max(deviations) if all(isfinite(d) for d in deviations) else inf
    return GoldenResult(", ".join(golden.files(card).values()), worst <= golden.tolerance, worst, golden.tolerance)


def _default_reader() -> ReadImage:
    from pellucid.io.reader import read_image  # only here: a model can be loaded where no image will be read

    return read_image


def _with_card(path: Path, gate: Gate, device: torch.device) -> LoadedModel:
    card = read_card(path)
    folder = path.parent
    weights = folder / card.model.weights
    if not weights.exists():
        raise BadCard(f"model.weights: there is no {card.model.weights} beside the card", "put the weights there")
    form = folder_form(weights) or detect_form(weights)  # a model's folder may hold this very card
    if form is Form.CARD:
        raise BadCard(f"model.weights: {card.model.weights} is no weights file", "name the weights")
    digest = _weights_digest(weights, form)
    if digest != card.model.sha256:
        raise WeightsMismatch(
            f"the weights {card.model.weights} are not those of the card: expected SHA-256 {card.model.sha256}, "
            f"got {digest}",
            "fetch the right file; if you changed the weights on purpose, measure the model again and write a new card",
        )
    card_digest = sha256_of(path)
    origin = Origin(weights, form, folder, gate, card, {path.name: card_digest}, device)
    if card.model.factory is not None and form in _LOADERS:
        raise BadCard(f"model.factory: {form} weights bring their own network", "remove model.factory")
    parts = _LOADERS[form](origin) if form in _LOADERS else load_python(origin, card)
    return _put_together(parts, card, folder, form, (digest, card_digest))


def _weights_digest(path: Path, form: Form) -> str:
    if form is Form.NNUNET:
        return sha256_of(find_trained(path).checkpoint)
    if form is Form.HUGGINGFACE:
        return sha256_of(path / WEIGHTS) if (path / WEIGHTS).is_file() else ""  # its loader says what is missing
    return sha256_of(bundle_weights(path) if form is Form.BUNDLE else path)


def _put_together(
    parts: Parts, card: ModelCard | None, folder: Path, form: Form, digests: tuple[str, str]
) -> LoadedModel:
    weights, card_digest = digests
    identity = (
        Identity(card.model.name, card.model.version, weights, card_digest)
        if card is not None
        else Identity(f"{form} without a card", "", weights, "")
    )
    layer = card.model.layer if card is not None else None
    windows = card.inference if card is not None else None
    model = Model(parts.module, parts.inputs, parts.output, identity, parts.can, layer, parts.call, windows)
    references, doubts = read_references(folder, weights)
    _check_labels(model, parts.channels)
    return LoadedModel(model, card, references, folder, form, parts.trust, (*parts.notes, *doubts))


def _check_labels(model: Model, channels: int | None) -> None:
    """A card whose labels are not as many as the output's channels would name the wrong class."""
    labels = model.output.labels
    if labels and channels is not None and len(labels) not in (channels, channels + (channels == 1)):
        raise BadCard(
            f"output.labels: the card names {len(labels)} classes, the model gives {channels}",
            "name every class in the order of the output (two for a single logit)",
        )


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise BadOption(f"there is no device {name!r} here: {str(error).partition('.')[0][:100]}", "use cpu") from error
    return device
