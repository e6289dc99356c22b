"""The head "vqbet": codes of action chunks, and offsets from what the codes stand for."""

import torch
from torch import Tensor, nn

from core import (
    ActionDimensions,
    ActionSpec,
    Batch,
    ConfigError,
    Context,
    ContextSpec,
    Generator,
    PolicyHead,
    build_mlp,
    masked_l1,
    masked_mean,
    masked_mean_per_sample,
)
from core.weights import Pretrained
from plugins.policies.vqbet.autoencoder import ActionAutoencoder
from plugins.policies.vqbet.chunks import Chunks, target_chunks
from plugins.policies.vqbet.codebooks import ResidualCodebooks
from plugins.policies.vqbet.head_config import VQBeTHeadConfig
from plugins.policies.vqbet.names import HEAD_NAMES, head_tensors, lerobot_files


class VQBeTHead(PolicyHead):
    """Draws the codes of a chunk, decodes them, and adds the offsets that belong to the codes.

    An autoencoder makes codes of chunks. It must train first, by a stage of training with `parts =
    ["policy_head.autoencoder"]`, and then rest, by `freeze`. A stage in which the autoencoder
    trains has the losses "reconstruction" and "commitment"; one in which the rest of the head
    trains has "code" and "offset". If all train at once, without stages, all four are there, and
    the codes change while they are learned.

    Of the Q readouts of a frame, the first gives the chunk that begins at the frame, and each
    further one the chunk that begins one step later; so a chunk has H - Q + 1 actions, and the last
    Q - 1 actions of the horizon each come from a readout of their own. Further readouts learn at
    the last frame of a window alone: those of earlier frames would repeat what later frames say.

    Past an episode's end, the autoencoder sees the last action repeated.

    `pretrained` takes weights of LeRobot's VQ-BeT.

    Raises ConfigError if there are no readouts, or more than the horizon has actions.
    """

    source = None  # `pretrained = true` is refused: LeRobot publishes many

    def __init__(
        self, config: VQBeTHeadConfig, *, context: ContextSpec, action: ActionSpec
    ) -> None:
        super().__init__()
        readouts = context.action_tokens
        if not 1 <= readouts <= action.horizon:
            raise ConfigError(
                f"policy_head.name: 'vqbet' makes a chunk of each of a frame's {readouts} action "
                f"tokens, and needs 1 to {action.horizon} of them (action.horizon); change one of "
                "the two numbers"
            )
        self.config, self.readouts = config, readouts
        self.context, self.bounded = context, action.bounded
        self.shape = (action.horizon - readouts + 1, action.dim)  # of a chunk
        books, codes = len(config.code_weights), config.codes
        self.autoencoder = ActionAutoencoder(
            self.shape,
            hidden=config.hidden_size,
            width=config.code_width,
            codebooks=ResidualCodebooks(books, codes, config.code_width, config.decay),
        )
        widths = [context.width, *config.mlp]
        self.code_logits = build_mlp([*widths, books * codes])
        self.offsets = build_mlp([*widths, books * codes * self.shape[0] * action.dim])
        self.register_buffer("weights", torch.tensor(config.code_weights), persistent=False)
        self.weights: Tensor
        self.dimensions = ActionDimensions(action)
        self.assumptions: tuple[str, ...] = ()

    def forward(self, context: Context, generator: Generator) -> Tensor:
        """Draw actions (B T H A): normalised numbers, and 0 to 1 for binary dimensions."""
        logits = self._logits(context.readout)
        chunks = self._decode(self._draw(logits, generator), context.readout)
        further = chunks[:, :, 1:, -1]
        return self.dimensions.unsigned(torch.cat([chunks[:, :, 0], further], dim=2))

    def loss(self, context: Context, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return those of the four terms whose weights train, each already weighted."""
        targets = target_chunks(self.dimensions, batch, self.readouts)
        terms = self._reconstruction(targets) if _trains(self.autoencoder) else {}
        if not terms or _trains(self.code_logits) or _trains(self.offsets):
            terms |= self._prediction(context, targets, generator)
        return terms

    def validation_error(self, context: Context, batch: Batch, generator: Generator) -> Tensor:  # noqa: ARG002
        """Return, for each sample, what the codes of its chunks cost, and what they get wrong (B).

        It is their negative log-likelihood (nats) plus the mean absolute error of the actions that
        they stand for, with their offsets.
        """
        targets = target_chunks(self.dimensions, batch, self.readouts)
        codes = self.autoencoder.encode(targets.actions)
        surprise = -_log_likelihood(self._logits(context.readout), codes).sum(dim=-1)
        error = (self._decode(codes, context.readout) - targets.actions).abs()
        return masked_mean_per_sample(surprise, targets.counts) + masked_mean_per_sample(
            error, targets.mask
        )

    def load_pretrained(self, weights: Pretrained) -> None:
        """Load codebooks and weights, strictly.

        Raises ConfigError also if the weights know proprioception or actions that are normalised in
        another way.
        """
        files = lerobot_files(weights)
        if self.context.proprio_dim:
            files.check_proprio_normalization(self.context.proprio_normalization)
        files.check_action_normalization(bounded=self.bounded)
        HEAD_NAMES.load(self, head_tensors(weights), weights.source)
        self.assumptions = files.describe_expected("action", "actions")

    def _reconstruction(self, targets: Chunks) -> dict[str, Tensor]:
        """Return the losses of the autoencoder."""
        coded = self.autoencoder(targets.actions.flatten(0, 2), targets.counts.flatten())
        distance = masked_mean(coded.distance, targets.counts.flatten())
        return {
            "reconstruction": masked_l1(
                coded.decoded.view_as(targets.actions), targets.actions, targets.mask
            ),
            "commitment": self.config.commitment_weight * distance,
        }

    def _prediction(
        self, context: Context, targets: Chunks, generator: Generator
    ) -> dict[str, Tensor]:
        """Return the losses of codes and offsets."""
        logits, codes = self._logits(context.readout), self.autoencoder.encode(targets.actions)
        likelihood = _log_likelihood(logits, codes)
        doubt = (1 - likelihood.exp()).clamp(min=1e-6)  # with a power's gradient, even below 1
        focal = -(doubt**self.config.focal_gamma) * likelihood
        code = masked_mean((focal * self.weights.float()).sum(dim=-1), targets.counts)
        if self.config.offset_codes == "drawn":
            codes = self._draw(logits, generator)
        error = masked_l1(self._decode(codes, context.readout), targets.actions, targets.mask)
        return {"code": code, "offset": self.config.offset_weight * error}

    def _logits(self, readout: Tensor) -> Tensor:
        """Readout (B T Q D) -> logits of each codebook's codes (B T Q G C) float32."""
        logits: Tensor = self.code_logits(readout).float()
        return logits.view(*readout.shape[:-1], -1, self.config.codes)

    @torch.no_grad()
    def _draw(self, logits: Tensor, generator: Generator) -> Tensor:
        """Draw a code of each codebook: logits (B T Q G C) -> (B T Q G) int64.

        The likeliest code after division by exponential noise is a draw, as in torch.multinomial.
        """
        exponential = -torch.log1p(-generator.uniform(*logits.shape))
        return (logits / self.config.temperature - exponential.log()).argmax(dim=-1)

    def _decode(self, codes: Tensor, readout: Tensor) -> Tensor:
        """Codes (B T Q G) and the readout -> chunks (B T Q h A) float32."""
        offsets: Tensor = self.offsets(readout).float()
        offsets = offsets.view(*codes.shape, self.config.codes, -1)  # (B T Q G C h*A)
        chosen = offsets.take_along_dim(codes[..., None, None], dim=-2).sum(dim=(-3, -2))
        return self.autoencoder.decode(codes) + chosen.view(*readout.shape[:-1], *self.shape)


def _log_likelihood(logits: Tensor, codes: Tensor) -> Tensor:
    """Logits (... G C) and codes (... G) -> the codes' log-likelihoods (... G)."""
    return logits.log_softmax(dim=-1).take_along_dim(codes[..., None], dim=-1).squeeze(-1)


def _trains(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())
