import tomllib
from pathlib import Path

import jsonschema
import pytest

from core.errors import ConfigError
from core.recipe.recipe import NOT_FOR_ACTING, load_recipe, load_recipe_of_run
from core.recipe.schema import recipe_schema
from core.registry.catalogue import load_plugins
from tests.toy_command import install_toy

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.toml"))
WORLD = """
[environment]
name = "toy"
cameras = 2
[demonstrations]
tasks = ["reach_red"]
noise = 0.5
[evaluate]
episodes = 7
controls = ["swapped_words"]
swap = ["red", "blue"]
"""
MINIMAL = """
[data]
path = "episodes.zarr"
[vision_encoder]
name = "timm_vit"
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
[action_tokens]
name = "learned"
[policy_head]
name = "lstm"
"""


@pytest.fixture(autouse=True)
def toy():
    install_toy()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides, load_plugins())
    return [mistake.removeprefix(f"{path}: ") for mistake in caught.value.mistakes]


def test_a_minimal_recipe_takes_the_defaults(tmp_path):
    recipe = load_recipe(written(tmp_path, MINIMAL), [], load_plugins())
    assert recipe.train.steps == 2000
    assert recipe.parts["backbone"].config.depth == 6
    assert recipe.data.path == tmp_path / "episodes.zarr"


def test_a_recipe_names_its_optimizer_or_has_adamw(tmp_path):
    def optimizer_of(text, *overrides):
        return load_recipe(written(tmp_path, text), overrides, load_plugins()).optimizer.as_dict()

    assert optimizer_of(MINIMAL) == {"name": "adamw", "eps": 1e-8}
    assert optimizer_of(MINIMAL, "optimizer.eps=1e-6") == {"name": "adamw", "eps": 1e-6}
    sgd = MINIMAL + '[optimizer]\nname = "sgd"\nmomentum = 0.5\n'
    assert optimizer_of(sgd) == {"name": "sgd", "momentum": 0.5, "nesterov": False}
    unknown = mistakes_of(written(tmp_path, MINIMAL), "optimizer.name=adam")
    assert unknown == ["optimizer.name: no optimizer is called 'adam'; did you mean 'adamw'?"]
    for key in ("momentum=0.9", "learning_rate=0.1"):
        (mistake,) = mistakes_of(written(tmp_path, MINIMAL), f"optimizer.{key}")
        assert mistake.startswith(f"optimizer.{key.partition('=')[0]}: unknown key")


def test_all_mistakes_come_at_once(tmp_path):
    text = MINIMAL.replace('name = "transformer"', 'name = "transfromer"').replace(
        'name = "lstm"', 'name = "lstm"\nhiden_size = 3\nlayers = "two"\ntrain = false'
    )
    mistakes = mistakes_of(written(tmp_path, text + "[trian]\nsteps = 1\n"), "train.batch_size=3.5")
    assert mistakes == [
        "[trian]: unknown section; did you mean 'train'?",
        "train.batch_size: expected a valid integer, got 3.5",
        "backbone.name: no backbone is called 'transfromer'; did you mean 'transformer'?",
        "policy_head.hiden_size: unknown key; did you mean 'hidden_size'?",
        "policy_head.layers: expected a valid integer, got 'two'",
        "policy_head.train: expected true: the action tokens and the policy head always train",
    ]


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        ("steps=3", "override 'steps=3': expected section.key=value"),
        ("train.steps", "override 'train.steps': expected section.key=value"),
        ("train.accumulation=5", "train: batch_size 32 must be a multiple"),
        ("train.learning_rate=-1", "train.learning_rate: expected greater than or equal to 0"),
        ("data.window=true", "data.window: expected a valid integer, got True"),
        (
            "data.path=2020-01-01",
            "data.path: expected a string, a number or a list, got 2020-01-01",
        ),
        ("action.rate=nan", "action.rate: expected a finite number, got nan"),
        ("train.betas=[2.0, 0.9]", "train.betas.0: expected less than 1"),
        ("train.steps=" + "9" * 5000, "train.steps: expected a valid integer"),
        ("train.steps=3\n[x]", "train.steps: expected a valid integer"),
        ("action.clip_range=[1.0, -1.0]", "action: clip_range must rise"),
        ("action.clip_range=[-0.65, 0.65]", "action: clip_range has no effect"),
        ("data.cameras=['a', 'a']", "data: cameras names one twice"),
        ("data.features=['a', 'a']", "data: features names one twice"),
        ("backbone.name=3", "backbone.name: expected the name of a backbone"),
    ],
)
def test_a_mistaken_override_is_said(tmp_path, override, mistake):
    assert mistakes_of(written(tmp_path, MINIMAL), override)[0].startswith(mistake)


def test_missing_sections_are_said(tmp_path):
    mistakes = mistakes_of(written(tmp_path, "train = 3\n"))
    assert mistakes[0].startswith("train: expected a section [train], got 3")
    assert "data: name either one store with path, or several with [[data.stores]]" in mistakes
    assert sum("expected the name of a" in mistake for mistake in mistakes) == 5


def test_sections_that_are_absent_stay_absent(tmp_path):
    recipe = load_recipe(written(tmp_path, MINIMAL), [], load_plugins())
    assert recipe.environment is recipe.demonstrations is recipe.evaluate is None
    assert (
        not {"environment", "demonstrations", "evaluate"} & tomllib.loads(recipe.as_toml()).keys()
    )


def test_a_world_and_what_to_do_in_it(tmp_path):
    recipe = load_recipe(
        written(tmp_path, MINIMAL + WORLD), ["evaluate.num_envs=3"], load_plugins()
    )
    assert (recipe.environment.component.name, recipe.environment.config.cameras) == ("toy", 2)
    assert (recipe.demonstrations.tasks, recipe.demonstrations.noise) == (("reach_red",), 0.5)
    assert (recipe.evaluate.episodes, recipe.evaluate.num_envs, recipe.evaluate.replan_steps) == (
        7,
        3,
        1,
    )
    assert load_recipe(written(tmp_path, recipe.as_toml()), [], load_plugins()) == recipe
    jsonschema.validate(tomllib.loads(recipe.as_toml()), recipe_schema(load_plugins()))


FORMER = "[evaluate]\nlanes = 8\nexecute = 2\n"


def test_keys_of_earlier_versions_mean_what_they_meant(tmp_path):
    text = MINIMAL + '[environment]\nname = "toy"\n'
    former = load_recipe(written(tmp_path, text + FORMER), [], load_plugins())
    assert (former.evaluate.num_envs, former.evaluate.replan_steps) == (8, 2)
    present = former.as_toml()
    assert "num_envs = 8" in present
    assert "lanes" not in present
    assert load_recipe(written(tmp_path, present), [], load_plugins()) == former


@pytest.mark.parametrize("key", ["evaluate.lanes", "evaluate.num_envs"])
@pytest.mark.parametrize("section", [FORMER, "[evaluate]\nnum_envs = 8\n", ""])
def test_an_override_may_use_the_former_or_the_present_name(tmp_path, section, key):
    path = written(tmp_path, MINIMAL + '[environment]\nname = "toy"\n' + section)
    recipe = load_recipe(path, [f"{key}=4"], load_plugins())
    assert recipe.evaluate.num_envs == 4
    later = load_recipe(path, [f"{key}=4", "evaluate.execute=3"], load_plugins())
    assert later.evaluate.replan_steps == 3


def test_a_key_under_both_its_names_is_refused(tmp_path):
    text = MINIMAL + '[environment]\nname = "toy"\n[evaluate]\nlanes = 8\nnum_envs = 4\n'
    (line,) = mistakes_of(written(tmp_path, text))
    assert line.startswith("evaluate.lanes: unknown key")


def test_an_override_can_add_a_section(tmp_path):
    overrides = ["environment.name=toy", "evaluate.episodes=2"]
    recipe = load_recipe(written(tmp_path, MINIMAL), overrides, load_plugins())
    assert (recipe.environment.component.name, recipe.evaluate.episodes) == ("toy", 2)


def test_another_environment_brings_its_own_tasks(tmp_path):
    world = WORLD.replace('name = "toy"', 'name = "calvin"') + 'cameras = {front = "static"}\n'
    path = written(tmp_path, MINIMAL + world)
    recipe = load_recipe(path, [], load_plugins(), environment="toy")
    assert recipe.environment.config.cameras == 1
    assert recipe.demonstrations is None
    assert (recipe.evaluate.episodes, recipe.evaluate.cameras) == (7, {})
    same = load_recipe(written(tmp_path, MINIMAL + WORLD), [], load_plugins(), environment="toy")
    assert (same.environment.config.cameras, same.demonstrations.tasks) == (2, ("reach_red",))


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        (
            "environment.name=tyo",
            "environment.name: no environment is called 'tyo'; did you mean 'toy'?",
        ),
        ("environment.camera=1", "environment.camera: unknown key; did you mean 'cameras'?"),
        ("environment.cameras=3", "environment.cameras: expected 1 or 2, got 3"),
        ("environment.train=false", "environment.train: unknown key"),
        (
            "demonstrations.noise=1.5",
            "demonstrations.noise: expected less than or equal to 1, got 1.5",
        ),
        ("demonstrations.episodes=0", "demonstrations.episodes: expected greater than 0, got 0"),
        (
            "demonstrations.episodes=100_001",
            "demonstrations.episodes: expected less than or equal to 100000",
        ),
        ("demonstrations.tasks=['a', 'a']", "demonstrations: tasks names one twice: a"),
        (
            "evaluate.controls=['blank']",
            "evaluate.controls.0: expected 'blank_images', 'swapped_words' or 'blank_history', got "
            "'blank'",
        ),
        (
            "evaluate.swap=['red']",
            'evaluate: controls names "swapped_words", but swap lists fewer than two words',
        ),
        ("evaluate.swap=['dark red', 'blue']", "evaluate: swap must hold single words"),
        (
            "evaluate={controls = [], swap = ['red', 'blue']}",
            'evaluate: swap has no effect without "swapped_words" in controls',
        ),
        (
            "evaluate.replan_steps=11",
            "evaluate.replan_steps: expected at most action.horizon = 10, got 11",
        ),
        ("evaluate.timeout=0", "evaluate.timeout: expected greater than 0"),
        ("evaluate.episodes=0", "evaluate: episodes = 0 and chains = 0 leave nothing to try"),
        (
            "evaluate.first_seed=999_999",  # a demonstration may have used it
            "evaluate.first_seed: expected greater than or equal to 1000000",
        ),
        ("evaluate.chains=-1", "evaluate.chains: expected greater than or equal to 0"),
        ("evaluate.checkpoint=first", "evaluate.checkpoint: expected 'last' or 'best'"),
    ],
)
def test_a_mistake_about_the_world_is_one_line(tmp_path, override, mistake):
    (line,) = mistakes_of(written(tmp_path, MINIMAL + WORLD), override)
    assert line.startswith(mistake)


def test_control_episodes_without_controls_are_said(tmp_path):
    world = '[environment]\nname = "toy"\n[evaluate]\ncontrol_episodes = 3\n'
    assert mistakes_of(written(tmp_path, MINIMAL + world)) == [
        "evaluate: control_episodes has no effect without controls; drop it"
    ]


def test_a_section_without_a_world_is_refused(tmp_path):
    text = MINIMAL + "[demonstrations]\n[evaluate]\nnum_envs = 0\n"
    assert mistakes_of(written(tmp_path, text)) == [
        "evaluate.num_envs: expected greater than 0, got 0",
        "[demonstrations]: there is no [environment] for it; "
        "add one, or leave out [demonstrations]",
        "[evaluate]: there is no [environment] for it; add one, or leave out [evaluate]",
    ]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(MINIMAL + "[evaluate]\n"), recipe_schema(load_plugins()))


def test_settings_that_a_frozen_part_ignores_are_refused(tmp_path):
    mistakes = mistakes_of(
        written(tmp_path, MINIMAL), "backbone.train=false", "backbone.learning_rate=1e-3"
    )
    assert mistakes == [
        "backbone: learning_rate, layer_decay and weight_decay have no effect on a part with "
        "train = false; drop them"
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"[train\n", "not valid TOML"), (b"\xff\xfe", "not UTF-8"), (None, "No such file")],
)
def test_an_unreadable_recipe_is_one_line(tmp_path, content, said):
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    assert len(mistakes_of(path)) == 1
    assert said in mistakes_of(path)[0]


def test_overrides_are_toml_values_or_bare_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [
        "train.schedule=linear",
        "policy_head.mlp=[8, 4]",
        "train.betas=[0.9, 0.95]",
        "data.path=here.zarr",
    ]
    (folder := tmp_path / "elsewhere").mkdir()
    recipe = load_recipe(written(folder, MINIMAL), overrides, load_plugins())
    assert recipe.train.schedule == "linear"
    assert recipe.parts["policy_head"].config.mlp == (8, 4)
    assert recipe.data.path == tmp_path / "here.zarr"  # typed here, so it is meant from here


def test_a_whole_section_can_be_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "elsewhere").mkdir()
    path = written(folder, MINIMAL + "layers = 3\ntrain = true\n")
    overrides = ['policy_head={name = "discrete", bins = 8}', "data={path = 'here.zarr'}"]
    recipe = load_recipe(path, [*overrides, "policy_head.learning_rate=0.5"], load_plugins())
    head = recipe.parts["policy_head"]
    assert (head.component.name, head.config.bins) == ("discrete", 8)
    assert head.settings.learning_rate == 0.5
    assert recipe.data.path == tmp_path / "here.zarr"  # typed here, so it is meant from here


def test_a_replaced_section_may_use_former_names(tmp_path):
    path = written(tmp_path, MINIMAL + WORLD)
    recipe = load_recipe(path, ["evaluate={lanes = 3}"], load_plugins())
    assert recipe.evaluate.num_envs == 3


def test_another_component_whose_section_keeps_the_former_keys_is_told_how_to_replace_it(tmp_path):
    path = written(tmp_path, MINIMAL + "layers = 3\n")
    mistakes = mistakes_of(path, "policy_head.name=discrete")
    assert mistakes[0].startswith("policy_head.layers: unknown key")
    assert mistakes[1:] == [
        "policy_head.name=discrete alone keeps the section's other keys, which were those of "
        "'lstm'; to replace the whole section: 'policy_head={name = \"discrete\"}'"
    ]
    advised = mistakes[1].rpartition(": ")[2].strip("'")
    recipe = load_recipe(path, [advised], load_plugins())
    assert recipe.parts["policy_head"].component.name == "discrete"


@pytest.mark.parametrize(
    "overrides",
    [
        ("policy_head.name=lstm", "policy_head.size=3"),
        ('policy_head={name = "discrete", size = 3}',),
    ],
)
def test_a_wrong_key_alone_is_no_reason_to_replace_the_section(tmp_path, overrides):
    (line,) = mistakes_of(written(tmp_path, MINIMAL), *overrides)
    assert line.startswith("policy_head.size: unknown key")


def test_evaluation_and_environment_of_a_run_may_be_replaced_and_no_other_section(tmp_path):
    written(tmp_path, MINIMAL + WORLD)
    recipe = load_recipe_of_run(tmp_path, ["evaluate={episodes = 3}"], load_plugins())
    assert recipe.evaluate.episodes == 3
    with pytest.raises(ConfigError, match=r"only evaluate\.\* and environment\.\* may change now"):
        load_recipe_of_run(tmp_path, ["train={steps = 3}"], load_plugins())


STORES = """
[[data.stores]]
path = "a.zarr"
weight = 2.0
cameras = { front = "image_0" }
[[data.stores]]
path = "sub/b.zarr"
name = "lab"
weight = 1
"""


def test_several_stores_and_the_way_back(tmp_path):
    text = MINIMAL.replace('path = "episodes.zarr"', "window = 4" + STORES)
    recipe = load_recipe(written(tmp_path, text), [], load_plugins())
    assert recipe.data.path is None
    assert [store.path for store in recipe.data.store_configs] == [
        tmp_path / "a.zarr",
        tmp_path / "sub" / "b.zarr",
    ]
    assert [(store.label, store.weight) for store in recipe.data.store_configs] == [
        ("a", 2.0),
        ("lab", 1.0),
    ]
    assert load_recipe(written(tmp_path, recipe.as_toml()), [], load_plugins()) == recipe
    jsonschema.validate(tomllib.loads(recipe.as_toml()), recipe_schema(load_plugins()))


@pytest.mark.parametrize(
    ("before", "after", "mistake"),
    [
        ("weight = 1\n", "", "data: stores: give every store a weight, or none"),
        ('name = "lab"', 'name = "a"', "data: stores (set name) names one twice: a"),
        ('name = "lab"', 'nam = "lab"', "data.stores.1.nam: unknown key"),
        ("weight = 1\n", "weight = 0\n", "data.stores.1.weight: expected greater than 0, got 0"),
        (
            "weight = 1\n",
            "weight = 2020-01-01\n",
            "data.stores.1.weight: expected a string, a number or a list",
        ),
        ("window = 4", 'path = "c.zarr"', "data: name either one store with path, or several"),
    ],
)
def test_mistakes_in_several_stores_are_said(tmp_path, before, after, mistake):
    text = MINIMAL.replace('path = "episodes.zarr"', "window = 4" + STORES)
    assert before in text
    assert any(
        line.startswith(mistake)
        for line in mistakes_of(written(tmp_path, text.replace(before, after)))
    )


def test_demonstrations_go_into_one_store(tmp_path):
    text = (MINIMAL + WORLD).replace('path = "episodes.zarr"', "window = 4" + STORES)
    assert any(
        line.startswith("[demonstrations]: they are recorded into one")
        for line in mistakes_of(written(tmp_path, text))
    )


def test_a_store_may_be_a_url(tmp_path):
    url = "s3://bucket/folder/episodes.zarr"
    path = written(tmp_path, MINIMAL.replace("episodes.zarr", url))
    recipe = load_recipe(path, [], load_plugins())
    assert recipe.data.path == url
    assert f'path = "{url}"' in recipe.as_toml()
    overridden = load_recipe(path, ["data.path=https://host/x.zarr"], load_plugins())
    assert overridden.data.path == "https://host/x.zarr"
    assert mistakes_of(path, "data.path=5") == ["data.path: expected a path or a URL, got 5"]


def test_the_resolved_recipe_is_the_same_recipe(tmp_path):
    recipe = load_recipe(written(tmp_path, MINIMAL), ["train.steps=7"], load_plugins())
    again = load_recipe(written(tmp_path, recipe.as_toml()), [], load_plugins())
    assert again == recipe


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_fits_the_schema(path):
    load_recipe(path, [], load_plugins())
    jsonschema.validate(tomllib.loads(path.read_text()), recipe_schema(load_plugins()))


def test_a_mistyped_key_may_have_meant_one_of_every_part(tmp_path):
    path = written(tmp_path, MINIMAL)
    assert mistakes_of(path, "backbone.trian=false", "policy_head.insulat=true") == [
        "backbone.trian: unknown key; did you mean 'train'?",
        "policy_head.insulat: unknown key; did you mean 'insulate'?",
    ]


def test_train_lists_loggers_by_name_or_with_their_keys(tmp_path):
    def loggers_of(*overrides):
        recipe = load_recipe(written(tmp_path, MINIMAL), overrides, load_plugins())
        return recipe.as_dict()["train"]["loggers"]

    assert loggers_of() == [{"name": "tensorboard"}]
    assert loggers_of("train.loggers=[]") == []
    assert loggers_of('train.loggers=["csv", {name="wandb", offline=true}]') == [
        {"name": "csv"},
        {"name": "wandb", "offline": True},
    ]


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        ('"csv"', "train.loggers: expected a list, got 'csv'"),
        ('["tensorbord"]', "train.loggers.0.name: no logger is called 'tensorbord'; did you mean"),
        ("[3]", "train.loggers.0.name: expected the name of a logger"),
        ('["csv", "csv"]', "train.loggers: names one twice: csv"),
        ('[{name="wandb", projct="a"}]', "train.loggers.0.projct: unknown key; did you mean"),
    ],
)
def test_mistakes_in_lists_of_loggers(tmp_path, value, mistake):
    (found,) = mistakes_of(written(tmp_path, MINIMAL), f"train.loggers={value}")
    assert found.startswith(mistake)


def test_loggers_need_not_be_installed_where_a_policy_acts(tmp_path):
    text = f"{MINIMAL}[train]\nloggers = ['gone']\n"
    recipe = load_recipe(written(tmp_path, text), [], load_plugins(), ignored=NOT_FOR_ACTING)
    assert [choice.component.name for choice in recipe.loggers] == ["tensorboard"]
