"""The continuous dimensions of an action, which a head regresses, and the binary dimensions."""

import torch
from torch import Tensor, nn

from core.contracts.parts import ActionSpec


class ActionDimensions(nn.Module):
    """Splits actions into continuous and binary dimensions, and joins them in the action's order.

    This class is a module, so that PyTorch moves its indices to the head's device. If the indices
    were lists, they would be copied to the device at every step. Checkpoints do not hold the
    indices.
    """

    def __init__(self, action: ActionSpec) -> None:
        super().__init__()
        self.continuous: Tensor
        self.binary: Tensor
        self.order: Tensor
        indices = {
            "continuous": torch.tensor(action.continuous, dtype=torch.int64),
            "binary": torch.tensor(action.binary, dtype=torch.int64),
            "order": torch.tensor(action.continuous + action.binary).argsort(),
        }
        for name, index in indices.items():
            self.register_buffer(name, index, persistent=False)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(... A) -> the continuous dimensions (... A_continuous) and the binary (... A_binary)."""
        return x.index_select(-1, self.continuous), x.index_select(-1, self.binary)

    def join(self, continuous: Tensor, binary: Tensor) -> Tensor:
        """(... A_continuous) and (... A_binary) -> (... A) in the action's order."""
        return torch.cat([continuous, binary], dim=-1).index_select(-1, self.order)

    def signed(self, actions: Tensor, mask: Tensor) -> Tensor:
        """Return actions (... A) as an input of a network: masked ones 0, binary ones -1 or 1.

        Masked actions hold anything, so that they must not enter a network. Binary dimensions get
        the scale of the normalised continuous dimensions.
        """
        signed = torch.where(self._is_binary(), 2 * actions - 1, actions)
        return signed.masked_fill(~mask, 0)

    def unsigned(self, x: Tensor) -> Tensor:
        """Undo `signed` for a network's output (... A): its binary dimensions become 0 to 1."""
        return torch.where(self._is_binary(), ((x + 1) / 2).clamp(0, 1), x)

    def _is_binary(self) -> Tensor:
        """Return which dimensions are binary (A) bool."""
        return self.order >= len(self.continuous)
