"""Muon for the matrices of hidden layers, and AdamW for all other weights."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Gt, Lt

from core import ConfigError, Register, hookimpl

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class MuonConfig:
    """The settings of Muon; the decay rates of its AdamW are `betas` in [train]."""

    momentum: Annotated[float, Ge(0), Lt(1)] = 0.95
    """decay rate of Muon's running average of the gradient."""
    nesterov: bool = True
    """look ahead along the momentum."""
    ns_steps: Annotated[int, Gt(0), Lt(100)] = 5
    """steps of the Newton-Schulz iteration, which makes the singular values of an update about 1.
    """
    adjust_lr_fn: Literal["match_rms_adamw", "original"] = "match_rms_adamw"
    """how an update depends on the matrix's shape (rows, columns): "match_rms_adamw" multiplies it
    by 0.2 sqrt(max(rows, columns)), so that AdamW's learning rates and weight decays serve Muon,
    too (Liu et al. 2025); "original" by sqrt(max(1, rows / columns)).
    """
    eps: Annotated[float, Gt(0)] = 1e-8
    """number added to the denominator of each of AdamW's updates."""

    def __post_init__(self) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"'muon' needs PyTorch 2.9, and {torch.__version__} is installed: upgrade it "
                '(pip install "torch>=2.9"), or set optimizer.name = "adamw"'
            )


class JoinedOptimizers(torch.optim.Optimizer):
    """Several optimisers, each for other weights, that look like one.

    All of them share one `state`. Their parameter groups are the groups of this optimiser, the same
    dictionaries, so a learning rate that is set here holds there.
    """

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.optimizers = optimizers
        super().__init__([g for optimizer in optimizers for g in optimizer.param_groups], {})
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step of every optimiser.

        closure: computes the loss and its gradients anew; it is called once, before the step.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned; it makes new groups, which are then shared again."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Give every optimiser this one's state, and its own part of this one's groups."""
        groups = iter(self.param_groups)
        for optimizer in self.optimizers:
            optimizer.param_groups = [next(groups) for _ in optimizer.param_groups]
            optimizer.state = self.state


def build_muon(
    config: MuonConfig, *, groups: Iterable[dict[str, Any]], betas: tuple[float, float]
) -> JoinedOptimizers:
    """Muon (Jordan et al. 2024) for the matrices of hidden layers, AdamW for all other weights.

    Muon takes weights of the role "matrix" that have two dimensions. AdamW takes vectors,
    embeddings, and kernels of convolutions, which have more dimensions.

    groups: parameter groups with roles, learning rates and weight decays; each stays whole, or is
        split into one group for Muon and one for AdamW.
    betas: decay rates of AdamW.

    Raises ConfigError if no weight is a matrix.
    """
    matrices, others = _split(groups)
    if not matrices:
        raise ConfigError(
            "optimizer.name: 'muon' is for matrices, and no matrix trains; "
            'set optimizer.name = "adamw"'
        )
    muon = torch.optim.Muon(
        matrices,
        momentum=config.momentum,
        nesterov=config.nesterov,
        ns_steps=config.ns_steps,
        adjust_lr_fn=config.adjust_lr_fn,
    )
    if not others:
        return JoinedOptimizers([muon])
    return JoinedOptimizers([muon, torch.optim.AdamW(others, betas=betas, eps=config.eps)])


def _split(groups: Iterable[dict[str, Any]]) -> tuple[Groups, Groups]:
    """Return the groups of the weights for Muon, and those of all other weights."""
    matrices: Groups = []
    others: Groups = []
    for group in groups:
        is_matrix = [group["role"] == "matrix" and p.ndim == 2 for p in group["params"]]
        for wanted, kept in ((True, matrices), (False, others)):
            parameters = [
                p for p, answer in zip(group["params"], is_matrix, strict=True) if answer is wanted
            ]
            if parameters:
                kept.append({**group, "params": parameters})
    return matrices, others


@hookimpl
def register_optimizers(register: Register) -> None:
    """Register "muon"."""
    register("muon", MuonConfig, build_muon)
