"""What the heads "diffusion" and "flow" tell their denoisers of each frame, and for which chunk."""

from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from core import (
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    Need,
    ReadoutWindow,
    State,
)
from plugins.heads.denoising.denoiser_config import DenoiserConfig


class Condition:
    """The last n frames' readouts, or observations, in place of the context's readout.

    An observation is the proprioception and all vision tokens as one vector, as in Diffusion Policy
    (Chi et al. 2023); tokens that are hidden are zeros. Frames are joined along the width, the
    oldest first; before an episode's first frame, that one is repeated.

    The chunk begins with the action of the oldest of these frames, and so has n - 1 past actions
    before the H that the head must give.

    needs: what the head must find in the context.
    past: n - 1.
    context, action: the sizes that denoisers are built for.

    Raises ConfigError if the window has fewer than n frames, or if the vision encoder does not say
    how many tokens it gives.
    """

    def __init__(self, config: DenoiserConfig, context: ContextSpec, action: ActionSpec) -> None:
        frames = config.observation_frames
        if frames > action.window:
            raise ConfigError(
                f"policy_head.observation_frames: {frames} is more than data.window = "
                f"{action.window}; set data.window = {frames}"
            )
        self.past = frames - 1
        self.observes = config.condition == "observation"
        self.needs: frozenset[Need] = frozenset({"vision"} if self.observes else ())
        width, tokens = context.width, context.action_tokens
        if self.observes:
            width, tokens = _observation_width(context), 1
        self.window = ReadoutWindow(frames, tokens * width)
        self.context = replace(context, width=frames * width, action_tokens=tokens)
        self.action = replace(action, horizon=action.horizon + self.past)

    def of_window(self, context: Context) -> Context:
        """Return the context whose readout is the condition of each frame (B T Q n*D)."""
        x = self._of_frames(context)
        frame = torch.arange(x.shape[1], device=x.device)[:, None]
        last = (frame + torch.arange(-self.past, 1, device=x.device)).clamp(min=0)  # (T n)
        return replace(context, readout=rearrange(x[:, last], "b t n q d -> b t q (n d)"))

    def initial_state(self, rows: int, like: Tensor) -> State:
        """Return the state before the first frame; `like` has the wanted dtype and device."""
        return self.window.empty(rows, like) if self.past else {}

    def of_newest(self, context: Context, state: State) -> tuple[Context, State]:
        """Do the same for one new frame (T = 1), given the state of those before it."""
        if not self.past:
            return self.of_window(context), state
        x = self._of_frames(context)
        state = self.window.push(state, x.flatten(2))
        back = torch.arange(-self.past - 1, 0, device=x.device)
        last = (state["count"][:, None] + back).clamp(min=0)  # (B n)
        frames = state["readouts"].take_along_dim(last[..., None], dim=1)
        readout = rearrange(frames, "b n (q d) -> b 1 q (n d)", q=x.shape[2])
        return replace(context, readout=readout), state

    def targets(self, batch: Batch) -> Batch:
        """Return the batch with n - 1 past actions before each frame's chunk (B T n-1+H A).

        They are the first actions of the frames before. Where there is none they are masked. Whole
        chunks are masked at frames past the episode's end, and at frames whose condition the window
        does not hold, because it begins in the middle of an episode.
        """
        if not self.past:
            return batch
        actions, mask = batch.targets
        frame = torch.arange(actions.shape[1], device=actions.device)
        counts = mask[:, :, :1]
        if batch.begins is not None:
            is_known = (frame >= self.past) | batch.begins[:, None]
            counts = counts & is_known[..., None, None]
        before = frame[:, None] + torch.arange(-self.past, 0, device=actions.device)  # (T n-1)
        earlier, was_there = actions[:, before.clamp(min=0), 0], mask[:, before.clamp(min=0), 0]
        was_there = was_there & (before >= 0)[..., None]
        return replace(
            batch,
            actions=torch.cat([earlier, actions], dim=2),
            action_mask=torch.cat([was_there, mask], dim=2) & counts,
        )

    def _of_frames(self, context: Context) -> Tensor:
        """Return the readout of each frame alone (B T Q D), or its observation as (B T 1 D)."""
        if not self.observes:
            return context.readout
        assert context.vision is not None
        vision = context.vision.tokens
        if context.vision.mask is not None:
            vision = vision.masked_fill(~context.vision.mask[..., None], 0)
        pieces = [vision.flatten(2)]
        if context.proprio is not None:
            pieces.insert(0, context.proprio.to(vision.dtype))
        return torch.cat(pieces, dim=-1)[:, :, None]


def _observation_width(context: ContextSpec) -> int:
    """Return the width of an observation; raise ConfigError if it is not known."""
    if not context.vision_tokens:
        raise ConfigError(
            'policy_head.condition: "observation" joins the vision encoder\'s tokens, and this '
            'encoder does not say how many there are; choose "readout", or an encoder that does, '
            "such as 'resnet_keypoints' or 'film_cnn'"
        )
    return context.proprio_dim + context.vision_tokens * context.vision_width
