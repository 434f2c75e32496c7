"""zennit's composite with the rule for batch normalization that makes it comparable."""

from torch import Tensor, nn


def without_in_place(network: nn.Module) -> nn.Module:
    """The peer's hooks read what an in-place activation has overwritten."""
    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return network


def _merged(network: nn.Module) -> list[tuple[list[str], str]]:
    """Each batch normalization that follows a convolution at once; the peer's own search pairs others in a DenseNet."""
    names = [name for name, _ in network.named_modules()]
    pairs = [([n], n.replace("layers.conv1", "layers.norm2")) for n in names if n.endswith("layers.conv1")]
    return [*pairs, (["features.conv0"], "features.norm0")]


def epsilon_plus(network: nn.Module, image: Tensor, label: int) -> Tensor:
    """Relevance of one class: z+ for convolutions, epsilon for what is dense and for batch normalization."""
    import torch
    from zennit.attribution import Gradient
    from zennit.canonizers import NamedMergeBatchNorm
    from zennit.composites import LayerMapComposite
    from zennit.rules import Epsilon, Norm, Pass, ZPlus
    from zennit.types import Activation, AvgPool, BatchNorm, Convolution, Linear

    rules = [
        (Activation, Pass()),
        (AvgPool, Norm()),
        (BatchNorm, Epsilon()),
        (Convolution, ZPlus()),
        (Linear, Epsilon()),
    ]
    composite = LayerMapComposite(layer_map=rules, canonizers=[NamedMergeBatchNorm(_merged(network))])

    def start(output: Tensor) -> Tensor:
        return torch.eye(output.shape[1], device=output.device)[[label] * len(output)] * output

    with Gradient(model=network, composite=composite) as attributor:
        return attributor(image.clone(), start)[1].detach()
