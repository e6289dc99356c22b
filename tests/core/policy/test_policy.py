"""The whole policy: joint gradients, independent samples, and acting frame by frame."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from core import ActionSpec, Batch, PastActions, PolicyHead
from core.policy.assembly import build_policy
from core.policy.augmentation import crop
from core.policy.policy import Policy
from core.recipe.contents import PARTS
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.contexts import noise

RECIPE = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "timm_vit"
model = "test_vit"
image_size = 32
[text_encoder]
name = "sentencepiece"
width = 24
[backbone]
name = "transformer"
width = 32
depth = 2
heads = 4
[action_tokens]
name = "learned"
count = 2
[policy_head]
name = "lstm"
hidden_size = 16
layers = 2
mlp = [16]
"""
CAMERAS = {"static": (3, 32, 32), "wrist": (3, 24, 24)}
FORMULATIONS = [
    (formulation, attention, layout)
    for formulation, attention, layout in product(
        ("policy_head", "interleaved", "one_step"),
        ("causal", "prefix", "bidirectional"),
        ("image_text_action", "text_image_action"),
    )
]
FROZEN = ("backbone.train=false", "backbone.pretrained=false")
INSTRUCTIONS = ("open the drawer", "push the puck to the goal and then come back", "lift")


def build(
    tmp_path, formulation="policy_head", attention="causal", layout="image_text_action", *more
) -> Policy:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    overrides = [
        f"action_tokens.formulation={formulation}",
        f"action_tokens.layout={layout}",
        f"action_tokens.attention={attention}",
        f"data.window={window_of(formulation)}",
        *more,
    ]
    recipe = load_recipe(tmp_path / "recipe.toml", overrides, load_plugins())
    torch.manual_seed(0)
    spec = ActionSpec(window=recipe.data.window, horizon=3, dim=4, binary=(3,))
    return build_policy(recipe, CAMERAS, spec, proprio_dim=5)


def window_of(formulation: str) -> int:
    return 1 if formulation == "one_step" else 3


def batch_of(policy: Policy, window: int, instructions=INSTRUCTIONS, horizon=3, dim=4) -> Batch:
    generator = torch.Generator().manual_seed(1)
    size = len(instructions)
    ids = [policy.text_encoder.tokenize(instruction) for instruction in instructions]
    longest = max(map(len, ids))
    mask = torch.tensor([[i < len(row) for i in range(longest)] for row in ids])
    images = {
        name: torch.randint(0, 256, (size, window, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in CAMERAS.items()
    }
    return Batch(
        images=images,
        instructions=instructions,
        text_ids=torch.tensor([[*row, *[0] * (longest - len(row))] for row in ids]),
        text_mask=None if mask.all() else mask,
        proprio=torch.randn(size, window, 5, generator=generator),
        actions=torch.rand(size, window, horizon, dim, generator=generator).round(),
        action_mask=torch.ones(size, window, horizon, dim, dtype=torch.bool),
        episodes=[f"episode {i}" for i in range(size)],
    )


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved"])
def test_the_loss_goes_on_from_a_carried_state(tmp_path, formulation):
    memory = "policy_head.memory=episode"
    policy = build(tmp_path, formulation, "causal", "image_text_action", memory).eval()
    batch = batch_of(policy, 3)
    losses, nothing = policy(batch, noise())
    assert nothing is None
    begun, state = policy(batch, noise(), policy.policy_head.initial_state(len(batch.episodes)))
    assert begun == losses
    assert not any(x.requires_grad for x in state.values())
    going_on, later = policy(batch, noise(), state)
    assert going_on["pose"] != losses["pose"]
    assert not torch.equal(later["h"], state["h"])
    going_on["total"].backward()


def read(policy: Policy, batch: Batch, seed: int = 0) -> torch.Tensor:
    return policy.context(batch, noise(seed)).readout


def one_sample(policy: Policy, batch: Batch, row: int) -> Batch:
    """Return one sample as a batch of its own, without padding."""
    tokens = len(policy.text_encoder.tokenize(batch.instructions[row]))
    pick = slice(row, row + 1)
    return replace(
        batch,
        images={name: x[pick] for name, x in batch.images.items()},
        instructions=[batch.instructions[row]],
        text_ids=batch.text_ids[pick, :tokens],
        text_mask=None,
        proprio=batch.proprio[pick],
        actions=batch.actions[pick],
        action_mask=batch.action_mask[pick],
    )


def frame(batch: Batch, t: int) -> Batch:
    images = {name: x[:, t : t + 1] for name, x in batch.images.items()}
    return replace(batch, images=images, proprio=batch.proprio[:, t : t + 1])


@pytest.mark.parametrize(("formulation", "attention", "layout"), FORMULATIONS)
def test_a_sample_alone_reads_as_in_a_padded_batch(tmp_path, formulation, attention, layout):
    policy = build(tmp_path, formulation, attention, layout, "action_tokens.proprio=true").eval()
    batch = batch_of(policy, window_of(formulation))
    assert batch.text_mask is not None
    together = read(policy, batch)
    for row in range(len(INSTRUCTIONS)):
        alone = read(policy, one_sample(policy, batch, row))
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("formulation", "attention", "layout"), FORMULATIONS)
def test_acting_frame_by_frame_equals_the_window(tmp_path, formulation, attention, layout):
    policy = build(tmp_path, formulation, attention, layout).eval()
    batch = batch_of(policy, window_of(formulation))
    window = policy.predict(batch, noise())
    state = policy.initial_state(torch.arange(len(INSTRUCTIONS)))
    for t in range(window_of(formulation)):
        actions, state = policy.act(frame(batch, t), state)
        torch.testing.assert_close(actions, window[:, t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("formulation", "attention", "layout"), FORMULATIONS)
def test_acting_with_past_actions_equals_the_window(tmp_path, formulation, attention, layout):
    reads_past = "action_tokens.past_action=true"
    policy = build(tmp_path, formulation, attention, layout, reads_past).eval()
    frames = window_of(formulation)
    known = torch.ones(len(INSTRUCTIONS), frames, dtype=torch.bool)
    known[:2, 0] = False  # the last sample begins within its episode
    past = PastActions(torch.randn(len(INSTRUCTIONS), frames, 4), known)
    batch = replace(batch_of(policy, frames), past=past)
    window = policy.predict(batch, noise())
    assert not torch.equal(window, policy.predict(replace(batch, past=None), noise()))
    state = policy.initial_state(torch.arange(len(INSTRUCTIONS)))
    for t in range(frames):
        of_frame = PastActions(past.actions[:, t : t + 1], past.known[:, t : t + 1])
        actions, state = policy.act(replace(frame(batch, t), past=of_frame), state)
        torch.testing.assert_close(actions, window[:, t], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("formulation", ["policy_head", "interleaved", "one_step"])
def test_one_backward_reaches_all_five_parts(tmp_path, formulation):
    policy = build(tmp_path, formulation)
    losses = policy(batch_of(policy, window_of(formulation)), noise()).losses
    assert losses.keys() == {"total", "pose", "gripper"}
    torch.testing.assert_close(losses["total"], losses["pose"] + losses["gripper"])
    losses["total"].backward()
    for kind in (*PARTS, "projections"):
        for name, parameter in getattr(policy, kind).named_parameters():
            assert parameter.grad is not None, f"{kind}.{name}"
        assert any(p.grad.abs().sum() > 0 for p in getattr(policy, kind).parameters()), kind


def test_the_instruction_and_the_image_change_the_action(tmp_path):
    policy = build(tmp_path).eval()
    batch = batch_of(policy, 3)
    other_words = replace(batch, text_ids=batch.text_ids.flip(0), text_mask=batch.text_mask.flip(0))
    other_image = replace(batch, images={name: 255 - x for name, x in batch.images.items()})
    actions = policy.predict(batch, noise())
    for changed in (other_words, other_image):
        assert not torch.allclose(policy.predict(changed, noise()), actions, atol=1e-5)


def test_a_frozen_part_gets_no_gradient_and_no_dropout(tmp_path):
    policy = build(tmp_path, "policy_head", "causal", "image_text_action", *FROZEN)
    policy.train()
    policy(batch_of(policy, 3), noise()).losses["total"].backward()
    assert not policy.backbone.training
    assert all(p.grad is None for p in policy.backbone.parameters())
    assert any(p.grad is not None for p in policy.vision_encoder.parameters())


def test_a_frozen_part_has_no_dropout_from_the_first_step_on(tmp_path):
    policy = build(tmp_path, "policy_head", "causal", "image_text_action", *FROZEN)
    assert not policy.backbone.training
    assert policy.vision_encoder.training


def test_images_are_augmented_in_training_and_cut_to_their_middle_when_acting(tmp_path):
    settings = ("augmentation.crop=0.75", "augmentation.shift=3", "backbone.dropout=0.0")
    policy = build(tmp_path, "policy_head", "causal", "image_text_action", *settings)
    plain = build(tmp_path, "policy_head", "causal", "image_text_action", "backbone.dropout=0.0")
    batch = batch_of(policy, 3)
    with torch.no_grad():
        policy.train()
        assert not torch.allclose(read(policy, batch, 0), read(policy, batch, 1), atol=1e-4)
        assert torch.equal(read(policy, batch, 0), read(policy, batch, 0))
        policy.eval()
        received = read(policy, batch)
        middle = {n: crop(x, 0.75, torch.zeros(1, 1, 2)) for n, x in batch.images.items()}
        torch.testing.assert_close(received, read(plain.eval(), replace(batch, images=middle)))
        assert not torch.allclose(received, read(plain, batch), atol=1e-4)


def test_a_part_that_breaks_its_contract_cannot_be_built():
    class Silent(PolicyHead):
        def forward(self, context, generator):
            return context.readout

    with pytest.raises(TypeError, match=r"abstract method.* loss"):
        Silent()


def test_widths_that_agree_need_no_projection(tmp_path):
    policy = build(tmp_path, "policy_head", "causal", "image_text_action", "text_encoder.width=32")
    assert isinstance(policy.projections["text"], torch.nn.Identity)
    assert isinstance(policy.projections["vision"], torch.nn.Linear)


@pytest.mark.parametrize(("formulation", "attention", "layout"), FORMULATIONS)
def test_the_image_of_an_absent_camera_changes_nothing(tmp_path, formulation, attention, layout):
    policy = build(tmp_path, formulation, attention, layout).eval()
    batch = batch_of(policy, window_of(formulation))
    lacking = replace(
        batch,
        present={
            "static": torch.tensor([True, True, False]),
            "wrist": torch.tensor([False, True, True]),
        },
    )
    images = {name: x.clone() for name, x in batch.images.items()}
    images["wrist"][0] = 255 - images["wrist"][0]
    images["static"][2] = 255 - images["static"][2]
    with torch.no_grad():
        before = policy.predict(lacking, noise())
        after = policy.predict(replace(lacking, images=images), noise())
        whole = policy.predict(batch, noise())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
    torch.testing.assert_close(before[1], whole[1], rtol=0, atol=1e-5)
    assert not torch.allclose(before[0], whole[0], atol=1e-4)


def test_tokens_of_cameras_in_any_order_are_hidden_by_name(tmp_path):
    policy = build(tmp_path).eval()
    # An encoder may have its cameras in an order of its own.
    policy.vision_encoder.cameras = ["wrist", "static"]
    batch = batch_of(policy, 3)
    lacking = replace(batch, present={"wrist": torch.zeros(3, dtype=torch.bool)})
    images = {"static": batch.images["static"], "wrist": 255 - batch.images["wrist"]}
    with torch.no_grad():
        before = policy.predict(lacking, noise())
        after = policy.predict(replace(lacking, images=images), noise())
    torch.testing.assert_close(after, before, rtol=0, atol=1e-6)
