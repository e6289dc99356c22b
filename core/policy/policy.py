"""Five parts -> one nn.Module: the data flow of every policy, whatever its parts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from core.contracts.abilities import HasOutputLayer
from core.contracts.batch import Batch, Memory, State, TokenGroup, TokenSequence
from core.contracts.context import Context, Words
from core.contracts.generator import Generator
from core.contracts.needs import LAYERS, Need
from core.contracts.parts import ActionTokens, Backbone, PolicyHead, TextEncoder, VisionEncoder
from core.contracts.tokens import hide_cameras
from core.errors import JoineryError
from core.policy.augmentation import Augmentation
from core.policy.kept_memory import carry_newest_frame, run_newest_frame
from core.policy.state import PolicyState, Window, add_frame
from core.registry.hookspecs import ComponentKind
from core.weights.pretrained import NO_FROZEN_WEIGHTS, FrozenWeights


@dataclass(frozen=True)
class EncodedText:
    """Instructions as the text encoder made them (B N D_text), and in the backbone's width (B N D)."""

    encoded: TokenGroup
    projected: TokenGroup


def stack_text(rows: Sequence[EncodedText]) -> EncodedText:
    """Instructions that were encoded one by one (1 N_i D) -> a batch (B N D), padded with zeros on
    the right.
    """
    return EncodedText(
        _stack([row.encoded for row in rows]), _stack([row.projected for row in rows])
    )


def _stack(groups: Sequence[TokenGroup]) -> TokenGroup:
    lengths = [group.tokens.shape[1] for group in groups]
    tokens = pad_sequence([group.tokens[0] for group in groups], batch_first=True)
    if min(lengths) == max(lengths):
        return TokenGroup(tokens)
    columns, ends = torch.arange(max(lengths)), torch.tensor(lengths)
    return TokenGroup(tokens, (columns < ends[:, None]).to(tokens.device))


@dataclass(frozen=True)
class EncodedImages:
    """Images as the vision encoder made them (B T N D_vision), and in the backbone's width (B T N
    D).
    """

    encoded: TokenGroup
    projected: TokenGroup


@dataclass(frozen=True)
class Objective:
    """How a head counts in training: the factor of its loss, and whether its gradients stop before
    the backbone.
    """

    weight: float = 1.0
    insulate: bool = False


class Policy(nn.Module):
    """A vision-language-action policy of five parts, trained jointly.

    images -> vision encoder -> projection ─┐
    text   -> text encoder   -> projection ─┴> action tokens -> backbone -> policy head
                                                                        └─> auxiliary heads, while
                                                                        training

    Before the vision encoder, an augmentation may change the images. objectives: of the policy
    head, and of each auxiliary head by its name.
    """

    def __init__(
        self,
        vision_encoder: VisionEncoder,
        text_encoder: TextEncoder,
        projections: Mapping[str, nn.Module],
        backbone: Backbone,
        action_tokens: ActionTokens,
        policy_head: PolicyHead,
        augmentation: Augmentation | None = None,
        auxiliary: Mapping[str, PolicyHead] | None = None,
        objectives: Mapping[str, Objective] | None = None,
    ) -> None:
        super().__init__()
        self.augmentation = augmentation
        self.vision_encoder = vision_encoder
        self.text_encoder = text_encoder
        self.projections = nn.ModuleDict(projections)  # of "vision" and "text"
        self.backbone = backbone
        self.action_tokens = action_tokens
        self.policy_head = policy_head
        self.auxiliary = nn.ModuleDict(auxiliary or {})
        self.objectives = objectives or {}
        self.frozen: list[nn.Module] = []
        self.published: FrozenWeights = NO_FROZEN_WEIGHTS

    def forward(self, batch: Batch, generator: Generator) -> dict[str, Tensor]:
        """Return the loss: all parts' named terms, and their sum as "total"; scalars.

        Terms of the policy head keep their names; others stand behind the part's:
        "vision_encoder/...".
        """
        heads = [
            entry
            for entry in self._heads()
            if batch.actions is not None or not entry[1].needs_actions
        ]
        needs = frozenset[Need]().union(*(head.needs for _, head, _ in heads))
        context, terms = self._observe(batch, batch, needs, generator)
        for prefix, head, objective in heads:
            losses = head.loss(
                context.detached() if objective.insulate else context, batch, generator
            )
            terms |= {prefix + name: objective.weight * term for name, term in losses.items()}
        if not terms:
            raise JoineryError(
                "the batch has no actions, and no head or part has a loss without them; give actions, or add a head "
                "with needs_actions = False"
            )
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def predict(self, batch: Batch, generator: Generator) -> Tensor:
        """Return normalised actions (B T H A) for every frame of the window."""
        actions: Tensor = self.policy_head(self.context(batch, generator), generator)
        return actions

    def context(self, batch: Batch, generator: Generator) -> Context:
        """Return what the policy head sees of a window."""
        return self._observe(batch, None, self.policy_head.needs, generator)[0]

    def _heads(self) -> Iterator[tuple[str, PolicyHead, Objective]]:
        """Every head, with what stands before the names of its terms, and how it counts."""
        yield "", self.policy_head, self.objectives.get("policy_head", Objective())
        for label, head in self.auxiliary.items():
            assert isinstance(head, PolicyHead)
            yield f"auxiliary/{label}/", head, self.objectives.get(label, Objective())

    # --------------------------------------------------------------------------------------- acting

    def initial_state(self, seeds: Tensor) -> PolicyState:
        """Rows that begin an episode each; what a policy that samples does there follows from its
        seed (B) int64.
        """
        return PolicyState(
            seeds, torch.zeros_like(seeds), {}, self.policy_head.initial_state(len(seeds)), {}
        )

    def reset(self, state: PolicyState, rows: Tensor, seeds: Tensor) -> PolicyState:
        """Let rows (B) bool begin an episode anew, with seeds (B) int64; the others go on."""
        return state.reset(rows, self.initial_state(seeds))

    def act(
        self, batch: Batch, state: PolicyState, text: EncodedText | None = None
    ) -> tuple[Tensor, PolicyState]:
        """One new frame (T = 1) of each row and the last state -> actions (B H A) and the next
        state.

        text: the instructions if they are encoded already.
        """
        generator = Generator.by_row(state.keys, batch.text_ids.device)
        text = text or self.encode_text(batch.text_ids, batch.text_mask)
        images = self._encode_images(batch, text, generator)
        span = self.action_tokens.context
        keep = span // 2 if self.keeps == "layers" else span - 1
        window = add_frame(state.history, images.projected, batch.proprio, span, keep)
        sequence = self.action_tokens.layout(
            window.vision, text.projected, window.proprio, None, generator
        )
        readout, memory, kept = self._run_newest(sequence, window, state.memory)
        context = self._context(
            batch, images, readout, window.newest[:, None], memory, self.policy_head.needs
        )
        actions, head = self.policy_head.act(context, state.head, generator)
        return actions, PolicyState(state.seed, state.step + 1, window.history, head, kept)

    @property
    def keeps(self) -> Literal["layers", "carry", "nothing"]:
        """What the backbone lets a row keep between its frames, where a sequence spans several."""
        offers, needs = self.backbone.offers, self.policy_head.needs
        if self.action_tokens.context == 1:
            return "nothing"
        if "extend" in offers:
            return "layers"
        return "carry" if "carry" in offers and not needs & (LAYERS | {"tokens"}) else "nothing"

    def _run_newest(
        self, sequence: TokenSequence, window: Window, kept: State
    ) -> tuple[Tensor, Memory | None, State]:
        """Run what is not kept of the rows' windows -> readout of the newest frame (B 1 Q D),
        memory, what to keep.
        """
        longest = self.backbone.longest
        match self.keeps:
            case "layers" if longest is None or sequence.frame.shape[1] <= longest:
                readout, whole, kept = run_newest_frame(self.backbone, sequence, window, kept)
                if (
                    "hidden_states" not in self.policy_head.needs
                ):  # as large as keys and values, and no head reads them
                    kept = {name: x for name, x in kept.items() if name != "hidden_states"}
                return readout, whole, kept
            case "carry":
                return carry_newest_frame(self.backbone, sequence, window, kept)
        readout, memory = self._mix(sequence, self.policy_head.needs)
        rows = torch.arange(len(window.newest), device=readout.device)
        return readout[rows, window.newest].unsqueeze(1), memory, {}

    # -------------------------------------------------------------------------------- the data flow

    def encode_text(self, ids: Tensor, mask: Tensor | None) -> EncodedText:
        """Instructions (B N) int64 -> tokens (B N D)."""
        text: TokenGroup = self.text_encoder(ids, mask)
        return EncodedText(text, replace(text, tokens=self.projections["text"](text.tokens)))

    def _observe(
        self, batch: Batch, targets: Batch | None, needs: frozenset[Need], generator: Generator
    ) -> tuple[Context, dict[str, Tensor]]:
        """A window -> what heads see of it, and the losses of the parts before them. targets: while
        training.
        """
        text = self.encode_text(batch.text_ids, batch.text_mask)
        images = self._encode_images(batch, text, generator)
        sequence = self.action_tokens.layout(
            images.projected, text.projected, batch.proprio, targets, generator
        )
        readout, memory = self._mix(sequence, needs)
        batch_size, window = readout.shape[:2]
        frame = torch.arange(window, device=readout.device).expand(batch_size, -1)
        if len(sequence.tokens) != batch_size:  # each frame is a sequence of its own
            frame = torch.zeros_like(frame)
        losses = {
            "vision_encoder": images.encoded.losses,
            "text_encoder": text.encoded.losses,
            "action_tokens": sequence.losses,
            "backbone": memory.losses if memory else {},
        }
        terms = {
            f"{part}/{name}": loss for part, named in losses.items() for name, loss in named.items()
        }
        return self._context(batch, images, readout, frame, memory, needs), terms

    def _encode_images(
        self, batch: Batch, text: EncodedText, generator: Generator
    ) -> EncodedImages:
        """Batch -> vision (B T N D), before and after the projection."""
        images = (
            batch.images
            if self.augmentation is None
            else self.augmentation(batch.images, generator)
        )
        vision: TokenGroup = self.vision_encoder({**images, **batch.features}, text.encoded)
        if not batch.present.keys().isdisjoint(self.vision_encoder.cameras):
            everywhere = torch.ones(
                len(vision.tokens), dtype=torch.bool, device=vision.tokens.device
            )
            present = [batch.present.get(name, everywhere) for name in self.vision_encoder.cameras]
            vision = hide_cameras(vision, torch.stack(present, dim=1))
        return EncodedImages(
            vision, replace(vision, tokens=self.projections["vision"](vision.tokens))
        )

    def _mix(self, sequence: TokenSequence, needs: frozenset[Need]) -> tuple[Tensor, Memory | None]:
        """Run the backbone, and no more of it than is needed -> readout (B T Q D) and memory."""
        if needs & LAYERS or "losses" in self.backbone.offers:
            memory = self.backbone.remember(sequence)
        elif "tokens" in needs:
            memory = Memory(sequence, self.backbone(sequence))
        else:
            return self.backbone.read(sequence), None
        return memory.tokens.flatten(0, 1)[sequence.readout], memory

    def _context(
        self,
        batch: Batch,
        images: EncodedImages,
        readout: Tensor,
        frame: Tensor,
        memory: Memory | None,
        needs: frozenset[Need],
    ) -> Context:
        return Context(
            readout=readout,
            frame=frame,
            proprio=batch.proprio,
            embodiment=batch.embodiment,
            features=batch.features,
            present=batch.present,
            vision=images.encoded if "vision" in needs else None,
            memory=memory,
            backbone=self.backbone,
            words=self._words() if "logits" in needs else None,
        )

    def _words(self) -> Words:
        """The words of a text encoder that is as wide as the backbone, as was checked when it was
        built.
        """
        assert isinstance(self.text_encoder, HasOutputLayer)
        text = self.text_encoder
        return Words(lambda ids: self.projections["text"](text.embed(ids)), text.logits)

    # ---------------------------------------------------------------------------------- what trains

    def freeze(self, kind: ComponentKind) -> None:
        """Keep a part as it is: no gradients, and no dropout."""
        part: nn.Module = getattr(self, kind)
        part.requires_grad_(False).eval()
        self.frozen.append(part)

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self
