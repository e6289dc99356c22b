"""The role of each parameter, by which an optimiser can choose how to change it."""

from typing import Literal

from torch import nn

Role = Literal["matrix", "vector", "embedding"]


def roles_of(module: nn.Module) -> dict[nn.Parameter, Role]:
    """Return the role of every parameter in a module.

    "vector": a parameter with at most one dimension (biases, weights of norms), and any parameter
        of a LayerNorm or RMSNorm.
    "embedding": the weight of an nn.Embedding, also where an output layer shares it; and a
        parameter whose name lacks the word "weight", as learned tokens and positions do. Layers
        name their matrices with that word, nn.LSTM's `weight_ih_l0` for example.
    "matrix": every other parameter: weights of linear and recurrent layers, adapters, and the
        kernels of convolutions, which have more than two dimensions.

    Output layers have no role of their own, because nothing about a module tells that its output is
    the policy's.
    """
    roles: dict[nn.Parameter, Role] = {}
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            # of the owners of a shared parameter, an embedding decides
            if roles.get(parameter) != "embedding":
                roles[parameter] = _role(owner, name, parameter)
    return roles


def _role(owner: nn.Module, name: str, parameter: nn.Parameter) -> Role:
    """Return the role of a parameter that `owner` holds under `name`."""
    if parameter.ndim <= 1 or isinstance(owner, nn.LayerNorm | nn.RMSNorm):
        return "vector"
    if isinstance(owner, nn.Embedding | nn.EmbeddingBag) or "weight" not in name:
        return "embedding"
    return "matrix"
