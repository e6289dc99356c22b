"""Training that begins with the weights of a run: what is taken, adapted, refused and kept."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.statistics import Statistics
from core.errors import ConfigError
from core.loading.training_data import action_spec
from core.policy.assembly import build_policy, restore_policy
from core.policy.initial_weights import KEPT, keep_frozen_weights, weights_to_keep
from core.policy.lora import merge_adapters
from core.policy.policy import Policy
from core.recipe.contents import Recipe
from core.recipe.places import find_places
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.system.torchvision import import_library
from core.weights.checkpoint import choose_checkpoint, save_checkpoint
from plugins.text.tokenizer import train as train_tokenizer
from tests.factories import make_info

RECIPE = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "timm_vit"
model = "test_vit"
image_size = 32
depth = 1
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
[policy_head]
name = "lstm"
hidden_size = 8
layers = 1
mlp = [8]
[[auxiliary]]
name = "discrete"
"""


def load(folder: Path, *changes: tuple[str, str]) -> Recipe:
    """Load the recipe above with changes of its text."""
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(text, encoding="utf-8")
    return load_recipe(folder / "recipe.toml", [], load_plugins())


def normalizers(info) -> tuple[Normalizer, ProprioNormalizer]:
    numbers = np.random.default_rng(0).normal(size=(9, info.action.dim))
    proprio = np.random.default_rng(0).normal(size=(9, len(info.proprio)))
    return (
        Normalizer.fit(Statistics.of(numbers), info.action, "min_max"),
        ProprioNormalizer.fit(Statistics.of(proprio)),
    )


def build(recipe: Recipe, info=None, moved=None) -> Policy:
    info = info or make_info()
    return build_policy(
        recipe,
        {name: (3, camera.height, camera.width) for name, camera in info.cameras.items()},
        action_spec(normalizers(info)[0], recipe.data.window, recipe.action.horizon),
        len(info.proprio),
        moved=moved,
    )


def saved_run(
    folder: Path, recipe: Recipe, info=None, step: int = 5, averages: float | None = None
) -> Policy:
    """Write a run of one checkpoint, and return its policy, whose weights no other one has.

    averages: the value of all averages of its weights; None if it keeps none.
    """
    info = info or make_info()
    torch.manual_seed(step)
    policy = build(recipe, info)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data += torch.randn_like(parameter) / 9
    action, proprio = normalizers(info)
    state = {
        "step": step,
        "validation_error": 1 / step,
        "action_normalizer": action.to_json(),
        "proprio_normalizer": proprio.to_json(),
        "action_convention": asdict(info.action),
        "cameras": {name: asdict(camera) for name, camera in info.cameras.items()},
        "proprio": list(info.proprio),
        "fps": info.fps,
    }
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    trained = [(name, x) for name, x in policy.named_parameters() if x.requires_grad]
    means = {} if averages is None else {n: torch.full_like(x, averages) for n, x in trained}
    save_checkpoint(folder, policy, optimizer, state, 9, policy.frozen_weights, means)
    (folder / "recipe.toml").write_text(recipe.as_toml())
    return policy


def keep(policy: Policy, recipe: Recipe, kept: Path) -> None:
    """Write the frozen weights of a new run, as training does."""
    keep_frozen_weights(weights_to_keep(policy, recipe), kept, resumed=False)


def start(run: Path, *anew: str, keys: str = "") -> tuple[str, str]:
    """Return the change of the recipe that begins with a run."""
    names = ", ".join(f'"{name}"' for name in anew)
    return "[data]", f'[start]\nrun = "{run}"\nanew = [{names}]\n{keys}\n[data]'


def equal_names(left: Policy, right: Policy) -> set[str]:
    others = right.state_dict()
    return {
        name
        for name, x in left.state_dict().items()
        if name in others and x.shape == others[name].shape and x.equal(others[name])
    }


def other_action(dim: int = 7):
    """Info of a store with another action; its camera and proprioception are the same."""
    info = make_info()
    names = tuple(f"j{i}" for i in range(dim))
    action = replace(info.action, names=names, scale=(1.0,) * dim, grippers=())
    return replace(info, action=action)


def test_all_parts_begin_with_the_weights_of_a_run(tmp_path):
    source = saved_run(tmp_path / "run", load(tmp_path / "a"))
    started = build(load(tmp_path / "b", start(tmp_path / "run")))
    assert equal_names(source, started) == set(source.state_dict())
    assert started.origin == (f"began with the weights of {tmp_path / 'run'} at step 5",)


def test_the_checkpoint_is_chosen(tmp_path):
    recipe = load(tmp_path / "a")
    first, _ = (saved_run(tmp_path / "run", recipe, step=step) for step in (2, 4))
    started = build(load(tmp_path / "b", start(tmp_path / "run", keys="checkpoint = 2")))
    assert equal_names(first, started) == set(first.state_dict())


def test_another_action_begins_anew_where_the_recipe_says_so(tmp_path):
    source, info = saved_run(tmp_path / "run", load(tmp_path / "a")), other_action()
    with pytest.raises(ConfigError) as caught:
        build(load(tmp_path / "b", start(tmp_path / "run")), info)
    misfits, advice = caught.value.mistakes
    assert "unexpected: " in misfits
    assert "policy_head.gripper.0.weight" in misfits
    assert "policy_head.pose.2.weight (30, 8) instead of (70, 8)" in misfits
    assert "auxiliary.discrete." in misfits, "all parts are in one list"
    assert advice.startswith("start.anew: to begin these anew, write anew = [")
    anew = [word.strip('" ') for word in advice.partition("[")[2].partition("]")[0].split(",")]
    started = build(load(tmp_path / "b", start(tmp_path / "run", *anew)), info)
    equal = equal_names(source, started)
    assert {name for name in equal if name.startswith("backbone.")} == {
        name for name in source.state_dict() if name.startswith("backbone.")
    }
    assert "policy_head.lstm.weight_ih_l0" in equal, "only what does not fit begins anew"
    assert "policy_head.pose.0.weight" in equal


def test_a_name_that_no_weight_has_is_refused(tmp_path):
    saved_run(tmp_path / "run", load(tmp_path / "a"))
    with pytest.raises(
        ConfigError, match=r"no weight's name begins with 'polcy_head'; did you mean"
    ):
        build(load(tmp_path / "b", start(tmp_path / "run", "polcy_head")))


def test_a_part_that_begins_anew_takes_its_own_source(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    saved_run(run, load(tmp_path / "a"))
    second = saved_run(other, load(tmp_path / "a"), step=7)
    key = 'name = "transformer"', f'name = "transformer"\npretrained = "{other}"'
    started = build(load(tmp_path / "b", start(run, "backbone"), key))
    own = {name for name in second.state_dict() if name.startswith("backbone.")}
    assert own <= equal_names(second, started)


def test_cameras_keep_their_vectors_and_a_new_one_gets_its_own(tmp_path):
    two, three = make_info(("front", "wrist")), make_info(("a_side", "front", "wrist"))
    source = saved_run(tmp_path / "run", load(tmp_path / "a"), two)
    started = build(load(tmp_path / "b", start(tmp_path / "run")), three)
    former, own = source.vision_encoder.camera, started.vision_encoder.camera
    assert torch.equal(own[1:], former)
    assert own[0].abs().sum() > 0
    assert started.origin[1] == "adapted to this recipe: vision_encoder.camera"
    one = build(load(tmp_path / "c", start(tmp_path / "run")), make_info(("wrist",)))
    assert one.vision_encoder.camera is None


def test_a_single_camera_had_no_vector_so_it_gets_zeros_beside_a_second(tmp_path):
    saved_run(tmp_path / "run", load(tmp_path / "a"), make_info(("front",)))
    started = build(load(tmp_path / "b", start(tmp_path / "run")), make_info(("front", "wrist")))
    assert not started.vision_encoder.camera[0].any()
    assert started.vision_encoder.camera[1].any()


def test_encoders_of_cameras_that_both_have_are_taken(tmp_path):
    film = (
        'name = "timm_vit"\nmodel = "test_vit"\nimage_size = 32\ndepth = 1',
        ('name = "film_cnn"\nimage_size = 16\nwidth = 24\nchannels = 8'),
    )
    source = saved_run(tmp_path / "run", load(tmp_path / "a", film), make_info(("front", "old")))
    started = build(
        load(tmp_path / "b", film, start(tmp_path / "run")), make_info(("front", "new"))
    )
    front = {name for name in source.state_dict() if "encoders.front." in name}
    assert front
    assert front <= equal_names(source, started)


def test_another_image_size_is_resized_as_timm_does(tmp_path):
    source = saved_run(tmp_path / "run", load(tmp_path / "a"))
    larger = "image_size = 32", "image_size = 64"
    started = build(load(tmp_path / "b", larger, start(tmp_path / "run")))
    before = source.vision_encoder.model
    expected = import_library("timm.layers").resample_abs_pos_embed(
        before.pos_embed,
        started.vision_encoder.model.patch_embed.grid_size,
        num_prefix_tokens=getattr(before, "num_prefix_tokens", 1),
    )
    assert before.pos_embed.shape != expected.shape
    torch.testing.assert_close(started.vision_encoder.model.pos_embed, expected)


def test_words_that_both_vocabularies_have_keep_their_embeddings(tmp_path):
    sentences = [f"{verb} the {noun}" for verb in ("push", "lift") for noun in ("cube", "puck")]
    (tmp_path / "words.model").write_bytes(train_tokenizer(sentences, 285))
    source = saved_run(tmp_path / "run", load(tmp_path / "a"))
    own = 'name = "sentencepiece"', f'name = "sentencepiece"\nmodel = "{tmp_path}/words.model"'
    started = build(load(tmp_path / "b", own, start(tmp_path / "run")))
    former, text = source.text_encoder, started.text_encoder
    rows = dict(zip(former.pieces, former.embedding.weight.detach().numpy(), strict=True))
    own_rows = dict(zip(text.pieces, text.embedding.weight.detach().numpy(), strict=True))
    shared, new = rows.keys() & own_rows.keys(), own_rows.keys() - rows.keys()
    assert shared
    assert new
    assert all(np.array_equal(rows[piece], own_rows[piece]) for piece in shared)
    assert not any(np.array_equal(own_rows[p], row) for p in new for row in rows.values())


def test_longer_instructions_keep_the_first_positions(tmp_path):
    layers = "width = 24", "width = 24\nlayers = 1"
    source = saved_run(tmp_path / "run", load(tmp_path / "a", layers))
    longer = "width = 24", "width = 24\nlayers = 1\nmax_tokens = 100"
    started = build(load(tmp_path / "b", longer, start(tmp_path / "run")))
    assert started.text_encoder.positions.shape == (100, 24)
    assert torch.equal(started.text_encoder.positions[:64], source.text_encoder.positions)


@pytest.mark.parametrize("train", ["false", '"lora"'])
def test_a_part_that_was_frozen_or_adapted_starts_another_run(tmp_path, train):
    """Its weights are those with which the run acts: adapters merged into the frozen ones."""
    import_library("peft", extra="lora")
    saved_run(tmp_path / "first", load(tmp_path / "a"))
    keys = f'name = "transformer"\ntrain = {train}\npretrained = "{tmp_path / "first"}"'
    second = load(tmp_path / "b", ('name = "transformer"', keys))
    policy = saved_run(tmp_path / "second", second, step=6)
    keep(policy, second, tmp_path / "second" / KEPT)
    (tmp_path / "first").rename(tmp_path / "gone")
    started = build(load(tmp_path / "c", start(tmp_path / "second")))
    module = policy.get_submodule("backbone.blocks.0.attention.output")
    expected = (
        module.weight
        if train == "false"
        else (
            module.base_layer.weight
            + module.scaling["default"]
            * module.lora_B.default.weight
            @ module.lora_A.default.weight
        )
    )
    own = started.get_submodule("backbone.blocks.0.attention.output").weight
    torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("train", ["false", '"lora"'])
def test_a_run_does_not_need_the_run_that_its_frozen_weights_come_from(tmp_path, train):
    import_library("peft", extra="lora")
    saved_run(tmp_path / "first", load(tmp_path / "a"))
    frozen = 'name = "transformer"', f'name = "transformer"\ntrain = {train}'
    recipe = load(tmp_path / "b", frozen, start(tmp_path / "first"))
    policy = saved_run(tmp_path / "second", recipe, step=6)
    assert policy.frozen_weights.names
    keep(policy, recipe, tmp_path / "second" / KEPT)
    (tmp_path / "first").rename(tmp_path / "gone")
    restored = restore_policy(recipe, choose_checkpoint(tmp_path / "second", "last"))
    assert equal_names(policy, restored) == set(policy.state_dict())


@pytest.mark.parametrize("keep_frozen", [True, False])
def test_published_frozen_weights_are_kept_if_the_recipe_says_so(tmp_path, keep_frozen):
    one_camera = make_info(("front",))
    published = build(load(tmp_path / "a"), one_camera).vision_encoder.model.state_dict()
    save_file(published, tmp_path / "vit.safetensors")
    frozen = "depth = 1", f'depth = 1\ntrain = false\npretrained = "{tmp_path}/vit.safetensors"'
    key = "[data]", f"[train]\nkeep_frozen = {str(keep_frozen).lower()}\n[data]"
    recipe = load(tmp_path / "b", frozen, key)
    policy = saved_run(tmp_path / "run", recipe, one_camera)
    keep(policy, recipe, tmp_path / "run" / KEPT)
    checkpoint = choose_checkpoint(tmp_path / "run", "last")
    (tmp_path / "vit.safetensors").rename(tmp_path / "moved.safetensors")
    if keep_frozen:
        restored = restore_policy(recipe, checkpoint)
        assert equal_names(policy, restored) == set(policy.state_dict())
        return
    with pytest.raises(ConfigError, match="there is no file or folder") as caught:
        restore_policy(recipe, checkpoint)
    assert "--moved OLD=NEW (in Python, moved={OLD: NEW})" in caught.value.mistakes[-1]
    moved = {f"{tmp_path}/vit.safetensors": f"{tmp_path}/moved.safetensors"}
    restored = restore_policy(find_places(recipe, tmp_path / "run", moved), checkpoint)
    assert equal_names(policy, restored) == set(policy.state_dict())


def test_frozen_weights_of_another_shape_are_refused_with_a_way_out(tmp_path):
    saved_run(tmp_path / "first", load(tmp_path / "a"))
    keys = f'depth = 2\ntrain = false\npretrained = "{tmp_path / "first"}"'
    recipe = load(tmp_path / "b", ("depth = 2", keys))
    policy = saved_run(tmp_path / "second", recipe, step=6)
    keep(policy, recipe, tmp_path / "second" / KEPT)
    checkpoint = choose_checkpoint(tmp_path / "second", "last")
    wider = load(tmp_path / "c", ("depth = 2", f"{keys}\nmlp_ratio = 2"))
    with pytest.raises(ConfigError, match=r"misshapen: backbone\.blocks.* former settings"):
        restore_policy(wider, checkpoint)
    deeper = load(tmp_path / "c", ("depth = 2", keys.replace("depth = 2", "depth = 1")))
    with pytest.raises(ConfigError, match=r"unexpected: backbone\.blocks\.1"):
        restore_policy(deeper, checkpoint)
    assert equal_names(policy, restore_policy(recipe, checkpoint)) == set(policy.state_dict())


def test_a_file_that_holds_more_than_the_recipe_needs_is_no_obstacle(tmp_path):
    """With changes, a part that was frozen may train, with other sizes, too."""
    saved_run(tmp_path / "first", load(tmp_path / "a"))
    keys = f'depth = 2\npretrained = "{tmp_path / "first"}"\ntrain = false'
    recipe = load(tmp_path / "b", ("depth = 2", keys))
    policy = saved_run(tmp_path / "second", recipe, step=6)
    keep(policy, recipe, tmp_path / "second" / KEPT)
    trains = load(tmp_path / "c", ("depth = 2", "depth = 2\nmlp_ratio = 2"))
    newer = saved_run(tmp_path / "second", trains, step=7)
    restored = restore_policy(trains, choose_checkpoint(tmp_path / "second", "last"))
    assert equal_names(newer, restored) == set(newer.state_dict())


def test_a_frozen_part_without_weights_needs_no_source(tmp_path):
    none = 'name = "sentencepiece"\nwidth = 24', 'name = "none"'
    saved_run(tmp_path / "first", load(tmp_path / "a", none))
    frozen = none[0], f"{none[1]}\ntrain = false"
    recipe = load(tmp_path / "b", frozen, start(tmp_path / "first"))
    policy = saved_run(tmp_path / "second", recipe, step=6)
    keep(policy, recipe, tmp_path / "second" / KEPT)
    assert not (tmp_path / "second" / KEPT).exists()
    (tmp_path / "first").rename(tmp_path / "gone")
    restored = restore_policy(recipe, choose_checkpoint(tmp_path / "second", "last"))
    assert equal_names(policy, restored) == set(policy.state_dict())


@pytest.mark.parametrize("keys", ['train = "lora"', 'freeze = ["blocks.0"]'])
def test_the_weights_that_trained_are_taken_of_every_part_if_averages_are_not_wanted(
    tmp_path, keys
):
    import_library("peft", extra="lora")
    saved_run(tmp_path / "first", load(tmp_path / "a"))
    part = "depth = 2", f'depth = 2\npretrained = "{tmp_path / "first"}"\n{keys}'
    policy = saved_run(tmp_path / "second", load(tmp_path / "b", part), step=6, averages=0.0)
    without = build(load(tmp_path / "c", start(tmp_path / "second", keys="averages = false")))
    averaged = build(load(tmp_path / "d", start(tmp_path / "second")))
    merge_adapters(policy.backbone)
    for part_of in ("backbone", "policy_head"):
        expected, own = (p.get_submodule(part_of).state_dict() for p in (policy, without))
        for name, x in expected.items():
            torch.testing.assert_close(own[name], x, msg=f"{part_of}.{name}")
    assert not averaged.policy_head.lstm.weight_ih_l0.any()


def test_one_checkpoint_is_named_once(tmp_path):
    recipe = load(tmp_path / "a")
    first, _ = (saved_run(tmp_path / "run", recipe, step=step) for step in (2, 4))
    folder = tmp_path / "run" / "checkpoints" / "step_00000002"
    with pytest.raises(ConfigError, match=r"start\.checkpoint: 4 is asked for, and start\.run"):
        build(load(tmp_path / "b", start(folder, keys="checkpoint = 4")))
    started = build(load(tmp_path / "b", start(folder)))
    assert equal_names(first, started) == set(first.state_dict())


def test_messages_name_the_key_and_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=rf"^start\.run: there is no run in '{tmp_path}/nope'"):
        build(load(tmp_path / "b", start(tmp_path / "nope")))
    saved_run(tmp_path / "run", load(tmp_path / "a"))
    model = tmp_path / "run" / "checkpoints" / "step_00000005" / "model.safetensors"
    model.write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"^start\.run: "):
        build(load(tmp_path / "b", start(tmp_path / "run")))


def test_a_run_whose_published_weights_have_moved_starts_another_one(tmp_path):
    """The advice of the message is followed; the message says of which run it speaks."""
    one_camera = make_info(("front",))
    published = build(load(tmp_path / "a"), one_camera).vision_encoder.model.state_dict()
    save_file(published, tmp_path / "vit.safetensors")
    frozen = "depth = 1", f'depth = 1\ntrain = false\npretrained = "{tmp_path}/vit.safetensors"'
    source = saved_run(tmp_path / "run", load(tmp_path / "b", frozen), one_camera)
    (tmp_path / "vit.safetensors").rename(tmp_path / "moved.safetensors")
    recipe = load(tmp_path / "c", start(tmp_path / "run"))
    with pytest.raises(ConfigError) as caught:
        build(recipe, one_camera)
    where = f"start.run: the policy of '{tmp_path / 'run'}': "
    assert all(line.startswith(where) for line in caught.value.mistakes)
    assert "--moved OLD=NEW" in caught.value.mistakes[-1]
    moved = {f"{tmp_path}/vit.safetensors": f"{tmp_path}/moved.safetensors"}
    started = build(recipe, one_camera, moved)
    assert equal_names(source, started) == set(source.state_dict())
