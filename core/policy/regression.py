"""Regressed chunks of actions: from the outputs of a head's networks to actions and losses."""

from typing import Literal

from einops import rearrange
from torch import Tensor, nn

from core.contracts.batch import Batch
from core.contracts.parts import ActionSpec
from core.errors import ConfigError
from core.policy.action_dimensions import ActionDimensions
from core.policy.losses import masked_bce, masked_huber, masked_l1, masked_mse

LOSSES = {"huber": masked_huber, "mse": masked_mse, "l1": masked_l1}


class ChunkRegression(nn.Module):
    """What heads that regress do with the outputs of their networks; it has no weights.

    The continuous dimensions of a chunk ("pose") are regressed, and its binary dimensions
    ("gripper") are classified, as in RoboVLMs (Liu et al. 2025).

    pose_size, gripper_size: widths of the networks' outputs; `gripper_size` is 0 if no dimension is
        binary, and then there is no network for the gripper.

    Raises ConfigError if no dimension is continuous, or if `tanh` is true and actions can lie
    outside [-1, 1].
    """

    def __init__(
        self,
        action: ActionSpec,
        *,
        loss: Literal["huber", "mse", "l1"],
        gripper_weight: float,
        tanh: bool,
    ) -> None:
        super().__init__()
        if not action.continuous:
            raise ConfigError(
                "policy_head.name: this head regresses continuous dimensions, and this action has "
                'none; choose policy_head.name = "discrete"'
            )
        if tanh and not action.bounded:
            raise ConfigError(
                "policy_head.tanh: actions leave [-1, 1] under this action.normalization and tanh "
                "cannot follow; set policy_head.tanh = false or choose a bounded "
                "action.normalization"
            )
        self.horizon = action.horizon
        self.pose_size = action.horizon * len(action.continuous)
        self.gripper_size = action.horizon * len(action.binary)
        self.pose_loss, self.gripper_weight = LOSSES[loss], gripper_weight
        self.bound = nn.Tanh() if tanh else nn.Identity()
        self.dimensions = ActionDimensions(action)

    def actions(self, pose: Tensor, gripper: Tensor | None) -> Tensor:
        """Turn the networks' outputs into actions, with probabilities for binary dimensions.

        pose (B T pose_size), gripper (B T gripper_size) -> (B T H A) float32.
        """
        numbers: Tensor = self.bound(self._steps(pose))
        if gripper is None:
            return numbers
        return self.dimensions.join(numbers, self._steps(gripper).sigmoid())

    def losses(self, pose: Tensor, gripper: Tensor | None, batch: Batch) -> dict[str, Tensor]:
        """Return "pose" and, if a dimension is binary, "gripper" (already weighted).

        Both are means over the chunks of all frames. The arguments are those of `actions`.
        """
        actions, mask = batch.targets
        pose_target, gripper_target = self.dimensions.split(actions)
        pose_mask, gripper_mask = self.dimensions.split(mask)
        numbers: Tensor = self.bound(self._steps(pose))
        terms = {"pose": self.pose_loss(numbers, pose_target, pose_mask)}
        if gripper is not None:
            entropy = masked_bce(self._steps(gripper), gripper_target, gripper_mask)
            terms["gripper"] = self.gripper_weight * entropy
        return terms

    def _steps(self, outputs: Tensor) -> Tensor:
        """(B T H*n) -> (B T H n) float32, because half precision is too coarse near 1."""
        return rearrange(outputs.float(), "b t (h n) -> b t h n", h=self.horizon)
