"""The policy: five parts in one nn.Module, and the flow of data between them.

The module core/policy/assembly.py makes a policy from a recipe.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from core.contracts.abilities import HasOutputLayer
from core.contracts.batch import (
    Batch,
    Memory,
    PastActions,
    State,
    TokenGroup,
    TokenSequence,
)
from core.contracts.context import Context, Words
from core.contracts.generator import Generator
from core.contracts.needs import LAYERS, Need
from core.contracts.parts import ActionTokens, Backbone, PolicyHead, TextEncoder, VisionEncoder
from core.contracts.tokens import hide_cameras
from core.errors import ConfigError, JoineryError
from core.policy.augmentation import Augmentation
from core.policy.boundary import Boundary
from core.policy.encoded import EncodedImages, EncodedText
from core.policy.kept_memory import carry_newest_frame, run_newest_frame
from core.policy.state import PolicyState, Window, add_frame
from core.weights.pretrained import NO_FROZEN_WEIGHTS, FrozenWeights


@dataclass(frozen=True)
class Objective:
    """How a head's loss contributes to training.

    weight: factor by which the head's loss is multiplied.
    insulate: whether the head's gradients stop before the backbone.
    """

    weight: float = 1.0
    insulate: bool = False


class TrainingOutput(NamedTuple):
    """What `Policy.forward` returns.

    It is a tuple because DistributedDataParallel looks for tensors in tuples.

    losses: {name: scalar}, the terms of the loss, and their sum as "total".
    next_state: the policy head's state after the windows, tensors (B ...) without gradients; None
        if none was given.
    """

    losses: dict[str, Tensor]
    next_state: State | None


class Policy(nn.Module):
    """A vision-language-action policy of five parts, trained jointly.

    images -> vision encoder -> projection ─┐
    text   -> text encoder   -> projection ─┴> action tokens -> backbone -> policy head
                                                                        └─> auxiliary heads

    Auxiliary heads run only in training.

    projections: "vision" and "text"; each projects its encoder's tokens to the backbone's width.
    augmentation: changes the images before the vision encoder; None leaves the images unchanged.
    auxiliary: {label: auxiliary head}.
    objectives: {label: objective} of all heads; the policy head's label is "policy_head".
    frozen_parts: parts that do not train at present; they stay in evaluation mode. `freeze` adds a
        part for good, and core/training/stages.py the parts that rest in a stage.
    frozen_weights: pretrained weights that checkpoints leave out.
    boundary: calls the parts, and checks what they return.
    origin: lines that say which run the initial weights come from; none if they come from no run.
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
        boundary: Boundary | None = None,
    ) -> None:
        super().__init__()
        self.boundary = boundary or Boundary()
        self.augmentation = augmentation
        self.vision_encoder = vision_encoder
        self.text_encoder = text_encoder
        self.projections = nn.ModuleDict(projections)
        self.backbone = backbone
        self.action_tokens = action_tokens
        self.policy_head = policy_head
        self.auxiliary = nn.ModuleDict(auxiliary or {})
        self.objectives = objectives or {}
        self.frozen_parts: list[nn.Module] = []
        self.frozen_weights: FrozenWeights = NO_FROZEN_WEIGHTS
        self.origin: tuple[str, ...] = ()

    # ------------------------------------------------------------------------------------- training

    def forward(
        self,
        batch: Batch,
        generator: Generator,
        state: State | None = None,
        counted: Collection[str] = (),
    ) -> TrainingOutput:
        """Return the named terms of the loss with their sum, and the policy head's next state.

        state: the policy head's state before the windows, for a head that carries; None: every
            window begins afresh. Auxiliary heads always begin afresh.
        counted: whose terms are returned: "policy_head", "auxiliary/<label>", or a part with terms
            of its own; empty: all.

        Terms of the policy head keep their names. The name of any other term begins with the part
        that returns the term: "vision_encoder/..." or "auxiliary/<label>/...".

        Raises JoineryError if no term is left, because the batch has no actions and every term
        needs them. Raises ConfigError if `counted` names a part that returned no term.
        """
        heads = {
            name: head
            for name, head in self._heads().items()
            if (batch.actions is not None or not head.needs_actions)
            and (not counted or _owner(name) in counted)
        }
        readers = [*heads.values(), *([] if state is None else [self.policy_head])]
        needs = frozenset[Need]().union(*(head.needs for head in readers))
        context, part_terms = self._observe(batch, needs, generator, targets=batch)
        terms = self._counted_terms(part_terms, counted)
        for name, head in heads.items():
            objective = self.objectives.get(name, Objective())
            head_context = context.detached() if objective.insulate else context
            prefix = f"{_owner(name)}/"
            if name == "policy_head":
                head_context, prefix = replace(head_context, state=state), ""
            losses = self.boundary.loss(_owner(name), head, head_context, batch, generator)
            weight = objective.weight * (batch.share if head.needs_actions else 1.0)
            for term, loss in losses.items():
                terms[prefix + term] = weight * loss
        if not terms:
            raise JoineryError(
                "the batch has no actions, and no head or part has a loss without them; "
                "give actions, or add a head with needs_actions = False"
            )
        total = {"total": torch.stack(list(terms.values())).sum()}
        if state is None:
            return TrainingOutput(total | terms, None)
        # After the losses, because mixed precision keeps the first copy that it makes of a weight:
        # a copy made without gradients must not be one that a loss reads.
        with torch.no_grad():
            next_state = self.boundary.next_state(self.policy_head, replace(context, state=state))
        return TrainingOutput(total | terms, next_state)

    def predict(self, batch: Batch, generator: Generator) -> Tensor:
        """Return normalised actions (B T H A) for every frame of the window."""
        context = self.context(batch, generator)
        return self.boundary.predict(self.policy_head, context, generator)

    def context(self, batch: Batch, generator: Generator) -> Context:
        """Return the context that the policy head reads for a batch of windows."""
        return self._observe(batch, self.policy_head.needs, generator, targets=None)[0]

    def _counted_terms(
        self, part_terms: Mapping[str, Tensor], counted: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the terms of those parts that `counted` names, or all if it is empty.

        Raises ConfigError if `counted` names a part that is no head and has no term.
        """
        if not counted:
            return dict(part_terms)
        part_of = {term: term.partition("/")[0] for term in part_terms}
        known = {*part_of.values(), *map(_owner, self._heads())}
        if silent := [name for name in counted if name not in known]:
            raise ConfigError(
                f"train.stages: losses names {', '.join(silent)}, without a loss of its own in this"
                " stage; drop the name, or name a head"
            )
        return {term: loss for term, loss in part_terms.items() if part_of[term] in counted}

    def _heads(self) -> dict[str, PolicyHead]:
        """Return the policy head as "policy_head", and the auxiliary heads by label."""
        heads = {"policy_head": self.policy_head}
        for label, head in self.auxiliary.items():
            assert isinstance(head, PolicyHead)
            heads[label] = head
        return heads

    # --------------------------------------------------- encode -> lay out -> backbone -> context

    def _observe(
        self, batch: Batch, needs: frozenset[Need], generator: Generator, targets: Batch | None
    ) -> tuple[Context, dict[str, Tensor]]:
        """Run all parts but the heads; return what the heads read, and the losses of these parts.

        targets: in training, the batch, because some layouts depend on its actions; otherwise None.
        """
        text = self.encode_text(batch.text_ids, batch.text_mask)
        images = self.encode_images(batch, text, generator)
        sequence = self._lay_out(
            images.projected, text, batch.proprio, batch.past, targets, generator
        )
        readout, memory = self._run_backbone(sequence, needs)
        batch_size, window = readout.shape[:2]
        frame = torch.arange(window, device=readout.device).expand(batch_size, -1)
        if len(sequence.tokens) != batch_size:  # each frame is a separate sequence
            frame = torch.zeros_like(frame)
        losses = {
            "vision_encoder": images.encoded.losses,
            "text_encoder": text.encoded.losses,
            "action_tokens": sequence.losses,
            "backbone": memory.losses if memory else {},
        }
        terms = {
            f"{part}/{name}": loss
            for part, part_losses in losses.items()
            for name, loss in part_losses.items()
        }
        return self._make_context(batch, images, readout, frame, memory, needs), terms

    def encode_text(self, ids: Tensor, mask: Tensor | None) -> EncodedText:
        """Instructions (B N) int64, mask (B N) bool -> tokens (B N D)."""
        text = self.boundary.encode_text(self.text_encoder, ids, mask)
        return EncodedText(text, replace(text, tokens=self.projections["text"](text.tokens)))

    def encode_images(self, batch: Batch, text: EncodedText, generator: Generator) -> EncodedImages:
        """Images and features of a batch -> tokens (B T N D), masked where a camera is absent."""
        images = batch.images
        if self.augmentation is not None:
            images = self.augmentation(images, generator)
        vision = self.boundary.encode_images(
            self.vision_encoder, {**images, **batch.features}, text.encoded
        )
        cameras = self.vision_encoder.cameras
        if not batch.present.keys().isdisjoint(cameras):
            always = torch.ones(len(vision.tokens), dtype=torch.bool, device=vision.tokens.device)
            present = [batch.present.get(name, always) for name in cameras]
            vision = hide_cameras(vision, torch.stack(present, dim=1))
        projected = replace(vision, tokens=self.projections["vision"](vision.tokens))
        return EncodedImages(vision, projected)

    def _lay_out(
        self,
        vision: TokenGroup,
        text: EncodedText,
        proprio: Tensor | None,
        past: PastActions | None,
        targets: Batch | None,
        generator: Generator,
    ) -> TokenSequence:
        """Arrange vision (B T N D), text and proprio (B T P) in sequences with action tokens."""
        return self.boundary.lay_out(
            self.action_tokens,
            self.backbone.width,
            vision,
            text.projected,
            proprio,
            past,
            targets,
            generator,
        )

    def _remember(self, sequence: TokenSequence, past: Memory | None = None) -> Memory:
        """Run the backbone on sequences after the past, and return the memory of both."""
        return self.boundary.remember(self.backbone, sequence, past)

    def _run_backbone(
        self, sequence: TokenSequence, needs: frozenset[Need]
    ) -> tuple[Tensor, Memory | None]:
        """Run the backbone; return the readout (B T Q D), and the memory if anything needs it."""
        if needs & LAYERS or "losses" in self.backbone.offers:
            memory = self._remember(sequence)
        elif "tokens" in needs:
            memory = Memory(sequence, self.boundary.run(self.backbone, sequence))
        else:
            return self.boundary.read(self.backbone, sequence), None
        return memory.tokens.flatten(0, 1)[sequence.readout], memory

    def _make_context(
        self,
        batch: Batch,
        images: EncodedImages,
        readout: Tensor,
        frame: Tensor,
        memory: Memory | None,
        needs: frozenset[Need],
    ) -> Context:
        """Collect what a head reads; `vision` and `words` are None unless the head needs them."""
        words = None
        if "logits" in needs:
            # core/policy/assembly.py has checked that the text encoder has a fitting output layer
            text_encoder, projection = self.text_encoder, self.projections["text"]
            assert isinstance(text_encoder, HasOutputLayer)
            embed = text_encoder.embed
            words = Words(lambda ids: projection(embed(ids)), text_encoder.logits)
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
            words=words,
        )

    # --------------------------------------------------------------------------------------- acting

    def initial_state(self, seeds: Tensor) -> PolicyState:
        """Return the state of B rows, each at the start of an episode.

        seeds: (B) int64; each seed determines all noise that the policy draws in its row's episode.
        """
        head = self.policy_head.initial_state(len(seeds))
        return PolicyState(seeds, torch.zeros_like(seeds), history={}, head=head, memory={})

    def reset(self, state: PolicyState, rows: Tensor, seeds: Tensor) -> PolicyState:
        """Start episodes with seeds (B) int64 in the rows (B) bool; other rows do not change."""
        return state.reset(rows, self.initial_state(seeds))

    def act(
        self, batch: Batch, state: PolicyState, text: EncodedText | None = None
    ) -> tuple[Tensor, PolicyState]:
        """Add one new frame (T = 1) to each row; return actions (B H A) and the next state.

        text: the encoded instructions; if None, this method encodes the batch's instructions.
        """
        generator = Generator.by_row(state.keys, batch.text_ids.device)
        text = text or self.encode_text(batch.text_ids, batch.text_mask)
        images = self.encode_images(batch, text, generator)
        context_length = self.action_tokens.context
        # If layers are kept, a full window drops half of its frames at once. After each drop, the
        # remaining frames must be run again, so it would be too slow to drop one frame at every
        # step.
        keep = context_length // 2 if self.keeps == "layers" else context_length - 1
        past = batch.past if self.action_tokens.reads_past else None
        window = add_frame(
            state.history, images.projected, batch.proprio, context_length, keep, past
        )
        sequence = self._lay_out(window.vision, text, window.proprio, window.past, None, generator)
        readout, memory, cache = self._run_newest(sequence, window, state.memory)
        context = self._make_context(
            batch, images, readout, window.newest[:, None], memory, self.policy_head.needs
        )
        actions, head = self.boundary.act(self.policy_head, context, state.head, generator)
        return actions, PolicyState(state.seed, state.step + 1, window.history, head, cache)

    @property
    def keeps(self) -> Literal["layers", "carry", "nothing"]:
        """What the backbone keeps from one frame to the next while acting.

        "layers": the keys and values of earlier frames.
        "carry": the state of a recurrent backbone.
        "nothing": the backbone keeps nothing, and runs the whole window at every frame.
        """
        offers, needs = self.backbone.offers, self.policy_head.needs
        if self.action_tokens.context == 1:
            return "nothing"
        if "extend" in offers:
            return "layers"
        return "carry" if "carry" in offers and not needs & (LAYERS | {"tokens"}) else "nothing"

    def _run_newest(
        self, sequence: TokenSequence, window: Window, cache: State
    ) -> tuple[Tensor, Memory | None, State]:
        """Run each row's newest frame; return the readout (B 1 Q D), the memory and the next cache.

        sequence: the tokens of each row's whole window.
        cache: the cache that this method returned for the previous frame.
        """
        longest, needs = self.backbone.longest, self.policy_head.needs
        match self.keeps:
            case "layers" if longest is None or sequence.frame.shape[1] <= longest:
                readout, memory, cache = run_newest_frame(self._remember, sequence, window, cache)
                if "hidden_states" not in needs:
                    # Hidden states need much memory, and the policy head does not read them.
                    cache = {name: x for name, x in cache.items() if name != "hidden_states"}
                return readout, memory, cache
            case "carry":
                return carry_newest_frame(self._remember, sequence, window, cache)
        whole_readout, whole_memory = self._run_backbone(sequence, needs)
        rows = torch.arange(len(window.newest), device=whole_readout.device)
        return whole_readout[rows, window.newest].unsqueeze(1), whole_memory, {}

    # ---------------------------------------------------------------------------------- what trains

    def freeze(self, name: str) -> None:
        """Freeze a part: no gradients, and no dropout."""
        part = self.get_submodule(name)
        part.requires_grad_(False)
        self.let_rest([part])

    def let_rest(self, modules: Collection[nn.Module]) -> None:
        """Keep modules in evaluation mode: no dropout, and running statistics that stay."""
        for module in modules:
            module.eval()
        self.frozen_parts += modules

    def train(self, mode: bool = True) -> Self:
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
        return self


def _owner(head: str) -> str:
    """Return the name of a head in the names of its terms, from its name in the policy."""
    return head if head == "policy_head" else f"auxiliary/{head}"


def owner_of(term: str) -> str:
    """Return the part that returned a term of the loss: a kind of part, or "auxiliary/<label>"."""
    *part, _ = term.split("/")
    return "/".join(part[:2]) if part[:1] == ["auxiliary"] else (part or ["policy_head"])[0]
