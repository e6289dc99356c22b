"""What a part may not return: a fault is one line that names part, plugin and contract."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core import Memory, PolicyError, TokenGroup
from core.policy.boundary import RESERVED_TERMS
from core.policy.policy import Policy
from tests.contexts import noise
from tests.strangers import batch_of, build

HEAD = r"^policy_head 'regression' of plugin 'regression_head' \(joinery-regression-head 0\): "
VISION = r"^vision_encoder 'film_cnn' of plugin 'plugins[.]\w+[.]film_cnn' \(joinery \S+\): "
TEXT = r"^text_encoder 'sentencepiece' of plugin 'plugins[.]\w+[.]sentencepiece' \(joinery \S+\): "
TOKENS = r"^action_tokens 'learned' of plugin 'plugins[.]\w+[.]learned' \(joinery \S+\): "
BACKBONE = r"^backbone 'transformer' of plugin 'plugins[.]\w+[.]transformer' \(joinery \S+\): "

Change = Callable[[Any], Any]


def policy_with(folder: Path, *overrides: str) -> Policy:
    """Return a policy whose head is a stranger's."""
    return build(folder, 'name = "regression"', *overrides, window=2).train()


def change(part: Any, method: str, result: Change) -> None:
    """Let a part's method return something else, made of what it would return."""
    original = getattr(part, method)
    setattr(part, method, lambda *arguments: result(original(*arguments)))


def train(policy: Policy) -> None:
    policy(batch_of(policy, window=2), noise())


def predict(policy: Policy) -> None:
    policy.predict(batch_of(policy, window=2), noise())


def act(policy: Policy) -> None:
    policy.act(batch_of(policy), policy.initial_state(torch.arange(3)))


def widened(group: TokenGroup) -> TokenGroup:
    return replace(group, tokens=group.tokens.repeat_interleave(2, dim=-1))


FAULTS = {
    # ---------------------------------------------------------------------------------------- heads
    "one action for all joints": (
        act,
        ("policy_head", "act"),
        lambda r: (r[0][..., :1], r[1]),
        HEAD + r"act returned float32 \(3, 3, 1\); its contract asks for actions \(B H A\) = "
        r"\(3, 3, 4\), floating point; mend the plugin",
    ),
    "actions without a state": (
        act,
        ("policy_head", "act"),
        lambda r: r[0],
        HEAD + r"act returned float32 \(3, 3, 4\); its contract asks for a tuple",
    ),
    "a state of another name": (
        act,
        ("policy_head", "act"),
        lambda r: (r[0], {"hidden": torch.zeros(3, 2)}),
        HEAD + "act returned a state of hidden; .* with the names of initial_state: none",
    ),
    "whole numbers": (
        act,
        ("policy_head", "act"),
        lambda r: (r[0].long(), r[1]),
        HEAD + r"act returned int64 \(3, 3, 4\); .*, floating point",
    ),
    "one step of the chunk": (
        predict,
        ("policy_head", "forward"),
        lambda x: x[:, :, :1],
        HEAD + r"forward returned float32 \(3, 2, 1, 4\); .* actions \(B T H A\) = \(3, 2, 3, 4\)",
    ),
    "numpy": (
        predict,
        ("policy_head", "forward"),
        lambda x: x.detach().numpy(),
        HEAD + "forward returned an object of type ndarray; ",
    ),
    "a bare loss": (
        train,
        ("policy_head", "loss"),
        lambda terms: terms["action"],
        HEAD + r"loss returned float32 \(\); its contract asks for a dict with at least one term",
    ),
    "no loss": (train, ("policy_head", "loss"), lambda _: {}, HEAD + "loss returned an empty dict"),
    "a loss of each sample": (
        train,
        ("policy_head", "loss"),
        lambda terms: {"action": terms["action"].expand(3)},
        HEAD + r"loss returned float32 \(3,\); its contract asks for a scalar as term 'action'",
    ),
    "a loss as a number": (
        train,
        ("policy_head", "loss"),
        lambda terms: {"action": terms["action"].item()},
        HEAD + "loss returned an object of type float; .* a scalar as term 'action'",
    ),
    "a loss without a gradient": (
        train,
        ("policy_head", "loss"),
        lambda terms: {**terms, "accuracy": terms["action"].detach()},
        HEAD + "loss returned a term 'accuracy' without a gradient; .*return 0 *",
    ),
    "a term with a slash": (
        train,
        ("policy_head", "loss"),
        lambda terms: {"validation/error": terms["action"]},
        HEAD + "loss returned a term named 'validation/error'; ",
    ),
    # ------------------------------------------------------------------------------ the other parts
    "bare tokens of images": (
        train,
        ("vision_encoder", "forward"),
        lambda group: group.tokens,
        VISION + r"forward returned float32 .*; its contract asks for a TokenGroup",
    ),
    "tokens of another width": (
        train,
        ("vision_encoder", "forward"),
        widened,
        VISION + r"forward returned .* tokens \(B T N D\) = \(3, 2, any, 24\)",
    ),
    "cameras with unequal numbers of tokens": (
        train,
        ("vision_encoder", "forward"),
        lambda group: replace(group, tokens=group.tokens[:, :, 1:]),
        VISION + "forward returned .* tokens per frame; .* each of 2 cameras",
    ),
    "a mask of numbers": (
        act,
        ("text_encoder", "forward"),
        lambda group: replace(group, mask=group.tokens[..., 0]),
        TEXT + r"forward returned float32 .* the mask of tokens \(B N D\) = .*, bool",
    ),
    "one text for all": (
        predict,
        ("text_encoder", "forward"),
        lambda group: replace(group, tokens=group.tokens[:1]),
        TEXT + r"forward returned float32 \(1, .*tokens \(B N D\) = \(3, any, 24\)",
    ),
    "no sequence": (
        predict,
        ("action_tokens", "layout"),
        lambda _: None,
        TOKENS + "layout returned nothing; its contract asks for a TokenSequence",
    ),
    "a readout of another count": (
        predict,
        ("action_tokens", "layout"),
        lambda sequence: replace(sequence, readout=sequence.readout.repeat(1, 1, 2)),
        TOKENS + r"layout returned int64 \(3, 2, 2\); .* readout \(B T Q\) = \(3, 2, 1\), int64",
    ),
    "frames that are not labelled": (
        act,
        ("action_tokens", "layout"),
        lambda sequence: replace(sequence, frame=sequence.frame[:, :1]),
        TOKENS + r"layout returned int64 \(3, 1\); .* frame \(S L\) = ",
    ),
    "position embeddings of another width": (
        predict,
        ("action_tokens", "layout"),
        lambda sequence: replace(sequence, position_embedding=sequence.tokens[..., :1]),
        TOKENS + r"layout returned float32 .*, 1\); .* position_embedding \(S L D\) = ",
    ),
    "a layout's loss that is no scalar": (
        train,
        ("action_tokens", "layout"),
        lambda sequence: replace(sequence, losses={"kl": sequence.tokens}),
        TOKENS + "layout returned float32 .* a scalar as term 'kl'",
    ),
    "hidden states without the sequence": (
        predict,
        ("backbone", "read"),
        lambda hidden: hidden[:, :, 0],
        BACKBONE + r"read returned float32 \(3, 2, 32\); .*\(B T Q D\) = \(3, 2, 1, 32\)",
    ),
}


@pytest.mark.parametrize(("call", "where", "result", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_one_line(
    call: Callable[[Policy], None],
    where: tuple[str, str],
    result: Change,
    message: str,
    tmp_path: Path,
) -> None:
    policy = policy_with(tmp_path)
    call(policy)  # works as it is
    change(getattr(policy, where[0]), where[1], result)
    with pytest.raises(PolicyError, match=message) as caught:
        call(policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(RESERVED_TERMS))
def test_a_term_may_not_take_a_name_of_the_metrics(name: str, tmp_path: Path) -> None:
    policy = policy_with(tmp_path)
    change(policy.policy_head, "loss", lambda terms: {name: terms["action"]})
    with pytest.raises(PolicyError, match=HEAD + f"loss returned a term named '{name}'"):
        train(policy)


def test_a_memory_that_lacks_layers_or_has_others_is_refused(tmp_path: Path) -> None:
    policy = build(tmp_path, 'name = "expert"')
    batch = batch_of(policy)
    policy.predict(batch, noise())

    def truncated(memory: Memory) -> Memory:
        return replace(memory, keys=memory.keys[:1])

    def shortened(memory: Memory) -> Memory:
        return replace(memory, values=tuple(x[:, :, 1:] for x in memory.values))

    remember = policy.backbone.remember
    for fault, message in (
        (truncated, "remember returned 1 layers of keys; its contract asks for 2 layers"),
        (shortened, r"remember returned float32 .* values \(S K L d\) = \(3, any, "),
        (lambda memory: memory.tokens, r"remember returned float32 .* a Memory"),
    ):
        policy.backbone.remember = lambda *given, fault=fault: fault(remember(*given))  # type: ignore[method-assign]
        with pytest.raises(PolicyError, match=BACKBONE + message):
            policy.predict(batch, noise())


def test_a_loss_of_stretched_actions_is_refused_and_named(tmp_path: Path) -> None:
    policy = policy_with(tmp_path)
    change(policy.policy_head, "forward", lambda actions: actions[:, :, :1])
    message = (
        r"loss: predicted \(3, 2, 1, 4\) and target \(3, 2, 3, 4\) must have the same shape; "
        "mend the plugin"
    )
    with pytest.raises(PolicyError, match=HEAD + message):
        train(policy)


def test_a_frozen_part_may_return_terms_without_a_gradient(tmp_path: Path) -> None:
    policy = policy_with(tmp_path)
    change(policy.backbone, "forward", lambda hidden: hidden)
    policy.freeze("vision_encoder")
    change(
        policy.vision_encoder,
        "forward",
        lambda group: replace(group, losses={"drift": group.tokens.detach().mean()}),
    )
    losses, _ = policy(batch_of(policy, window=2), noise())
    assert "vision_encoder/drift" in losses


def test_an_auxiliary_head_is_named_by_its_label(tmp_path: Path) -> None:
    more = '[[auxiliary]]\nlabel = "second"\nname = "regression"\n'
    policy = build(tmp_path, 'name = "regression"', more=more, window=2).train()
    change(policy.auxiliary["second"], "loss", lambda terms: {"action": terms["action"].expand(3)})
    with pytest.raises(
        PolicyError, match=r"^auxiliary/second 'regression' of plugin 'regression_head'"
    ):
        train(policy)


def test_a_carried_state_keeps_its_names_and_sizes(tmp_path: Path) -> None:
    lines = 'name = "lstm"\nhidden_size = 16\nlayers = 1\nmlp = [16]\nmemory = "episode"'
    policy = build(tmp_path, lines, window=2).train()
    batch, state = batch_of(policy, window=2), policy.policy_head.initial_state(3)
    policy(batch, noise(), state)
    change(policy.policy_head, "next_state", lambda state: {n: x[:1] for n, x in state.items()})
    message = r"next_state returned '\w+', float32 \(1, .*; its contract asks for .* with 3 rows"
    with pytest.raises(PolicyError, match=message):
        policy(batch, noise(), state)
