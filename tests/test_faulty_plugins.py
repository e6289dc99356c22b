"""Plugins with one deliberate fault each: every fault is a line that names the plugin and a remedy.

Each plugin is a package with an entry point on Python's path, and is run by the real commands.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from core import cli
from core.registry.catalogue import load_plugins
from tests.core.training.conftest import RECIPE
from tests.factories import make_store

METADATA = "Metadata-Version: 2.1\nName: joinery-faulty\nVersion: 1.2\n"
ENTRY_POINTS = "[joinery]\nfaulty_plugin = faulty\n[joinery.commands]\nfaulty = faulty:main\n"
WHO = r"'faulty_plugin' \(joinery-faulty 1\.2\)"
PLACE = r", at \S*faulty\.py:\d+"
FAILED = rf"FAILED  {WHO}: "

HEADER = """
from dataclasses import dataclass

import torch
from torch import nn

import core
from core import hookimpl


@dataclass(frozen=True)
class Config:
    size: int = 8
"""
HEAD = f"""{HEADER}

class Head(core.PolicyHead):
    def __init__(self, config, *, context, action):
        super().__init__()
        self.shape = (action.horizon, action.dim)
        self.linear = nn.Linear(context.width, action.horizon * action.dim)

    def forward(self, context, generator):
        return self.linear(context.readout.mean(dim=2)).unflatten(-1, self.shape)

    def loss(self, context, batch, generator):
        actions = self(context, generator)
        return {{"action": core.masked_mse(actions, batch.actions, batch.action_mask)}}


@hookimpl
def register_policy_heads(register):
    register("faulty", Config, Head)
"""
VISION = f"""{HEADER}

class Encoder(core.VisionEncoder):
    def __init__(self, config, *, cameras):
        super().__init__()
        self.width, self.cameras = config.size, sorted(cameras)
        self.linear = nn.Linear(3, config.size)

    def forward(self, images, text):
        means = [images[name].float().mean(dim=(-2, -1)) / 255 for name in self.cameras]
        return core.TokenGroup(self.linear(torch.stack(means, dim=2)))


@hookimpl
def register_vision_encoders(register):
    register("faulty", Config, Encoder)
"""
TEXT = f"""{HEADER}

class Encoder(core.TextEncoder):
    def __init__(self, config):
        super().__init__()
        self.width = config.size
        self.table = nn.Embedding(256, config.size)

    def tokenize(self, instruction):
        return list(instruction.encode())

    def forward(self, ids, mask):
        return core.TokenGroup(self.table(ids), mask)


@hookimpl
def register_text_encoders(register):
    register("faulty", Config, Encoder)
"""
BACKBONE = f"""{HEADER}

class Net(core.Backbone):
    def __init__(self, config):
        super().__init__()
        self.width = config.size
        self.linear = nn.Linear(config.size, config.size)

    def forward(self, sequence):
        return self.linear(sequence.tokens.cumsum(dim=1))


@hookimpl
def register_backbones(register):
    register("faulty", Config, Net)
"""
OPTIMIZER = f"""{HEADER}

@hookimpl
def register_optimizers(register):
    register("faulty", Config, make)


def make(config, *, groups):
    return torch.optim.SGD(groups, lr=0.1)
"""
TOKENS = f"""{HEADER}
from plugins.action_tokens.learned import LearnedConfig, LearnedTokens


class Tokens(LearnedTokens):
    def layout(self, vision, text, proprio, batch, generator):
        return super().layout(vision, text, proprio, batch, generator)


@hookimpl
def register_action_tokens(register):
    register("faulty", LearnedConfig, Tokens)
"""
WORLD = """
import numpy as np

from core import hookimpl
from core.environments import Observation
from tests.toy_environment import ToyConfig, ToyEnvironment


class World(ToyEnvironment):
    def step(self, action):
        return super().step(action)

    def observe(self):
        return super().observe()

    def expert(self):
        return super().expert()


@hookimpl
def register_environments(register):
    register("faulty", ToyConfig, World)
"""
DATASET = f"""{HEADER}
from core import open_store


class Source:
    def __init__(self, config, *, source):
        self.store = open_store(source)
        self.info = self.store.info

    def ids(self):
        return [self.store.episode_id(i) for i in range(len(self.store))]

    def read(self, episode):
        return self.store[self.ids().index(episode)]


@hookimpl
def register_datasets(register):
    register("faulty", Config, Source)
"""
EXPORTER = f"""{HEADER}

class Sink:
    def __init__(self, config, *, info, out):
        self.file = out.open("w")

    def append(self, episode):
        self.file.write(episode.id)

    def finish(self):
        self.file.flush()

    def close(self):
        self.file.close()


@hookimpl
def register_exporters(register):
    register("faulty", Config, Sink)


def main(arguments):
    raise KeyError("size")
"""


@dataclass(frozen=True)
class Fault:
    """One faulty plugin, and what its user must see.

    name: what is wrong.
    source: the code of a sound plugin.
    old, new: the text of it that is replaced, and the faulty text.
    words: the command; STORE, RECIPE and OUT stand for paths.
    seen: patterns of what the command prints.
    """

    name: str
    source: str
    old: str
    new: str
    words: tuple[str, ...]
    seen: tuple[str, ...]

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


PLUGINS = ("plugins",)
COLLECT = ("collect", "faulty", "OUT", "--episodes", "1", "--workers", "1", "--noise", "0.2")
IMPORT = ("import", "faulty", "STORE", "OUT", "--jobs", "1")
WRITE = ("write", "faulty", "STORE", "OUT")


def run_with(section: str) -> tuple[str, ...]:
    return ("run", "RECIPE", section)


HEAD_RUN = run_with("policy_head")
MEND = r"mend the plugin, or use another \(JOINERY_TRACEBACK=1 shows the traceback\)"
FORWARD = "def forward(self, context, generator):\n        "
HOOK = "def register_policy_heads(register):"

FAULTS = [
    # ------------------------------------------------------------------------ packages and hooks
    Fault(
        "a library is missing at import",
        *(HEAD, "import torch", "import nosuchlib", PLUGINS),
        (rf"{FAILED}ModuleNotFoundError: No module named 'nosuchlib'{PLACE}",),
    ),
    Fault(
        "the module does not parse",
        *(HEAD, "import torch", "import = torch", PLUGINS),
        (rf"{FAILED}SyntaxError: invalid syntax{PLACE}",),
    ),
    Fault(
        "the import leaves the program",
        *(HEAD, "import torch", "raise SystemExit('no licence')", PLUGINS),
        (rf"{FAILED}SystemExit: no licence{PLACE}",),
    ),
    Fault(
        "a hook is misspelt",
        *(HEAD, "register_policy_heads", "register_policy_head", PLUGINS),
        (rf"{FAILED}register_policy_head is no hook{PLACE}; did you mean 'register_policy_heads'",),
    ),
    Fault(
        "a hook is misspelt beside a right one",
        *(
            HEAD,
            "@hookimpl",
            "@hookimpl\ndef register_backbone(register):\n    pass\n\n\n@hookimpl",
        ),
        PLUGINS,
        (
            rf"{FAILED}register_backbone is no hook{PLACE}; did you mean 'register_backbones'",
            r"faulty  \[faulty_plugin, joinery-faulty 1\.2\]",
        ),
    ),
    Fault(
        "a hook is not marked",
        *(HEAD, "@hookimpl\n", "", PLUGINS),
        (rf"{FAILED}register_policy_heads is not marked as a hook: write @hookimpl.*{PLACE}",),
    ),
    Fault(
        "a hook takes another argument",
        *(HEAD, "heads(register)", "heads(registry)", PLUGINS),
        (r"register_policy_heads\(registry\) must be register_policy_heads\(register\)" + PLACE,),
    ),
    Fault(
        "a hook is a wrapper",
        *(HEAD, "@hookimpl", "@hookimpl(wrapper=True)", PLUGINS),
        (rf"{FAILED}.*is a wrapper: write @hookimpl without arguments{PLACE}",),
    ),
    Fault(
        "a hook raises",
        *(HEAD, '"faulty", Config', '{}["faulty"], Config', PLUGINS),
        (rf"{FAILED}KeyError: 'faulty'{PLACE}",),
    ),
    Fault(
        "there is no hook",
        *(HEAD, f"@hookimpl\n{HOOK}\n    register", "enrol = print\nenrol", PLUGINS),
        (rf"{FAILED}it registers nothing: it has no @hookimpl function called register_vision",),
    ),
    Fault(
        "a name has a capital letter",
        *(HEAD, '"faulty", Config', '"Faulty", Config', PLUGINS),
        (rf"{FAILED}.*policy_head 'Faulty': a name is lower-case letters.*{PLACE}",),
    ),
    Fault(
        "a config is not frozen",
        *(HEAD, "(frozen=True)", "", PLUGINS),
        (rf"{FAILED}.*policy_head 'faulty': its config .* must be a frozen dataclass{PLACE}",),
    ),
    Fault(
        "a config has a key of every part",
        *(HEAD, "size: int", "train: int", PLUGINS),
        (rf"{FAILED}.*its config redefines \['train'\], which every part has already{PLACE}",),
    ),
    Fault(
        "a config has a type without a schema",
        *(HEAD, "size: int = 8", "dtype: torch.dtype = torch.float32", PLUGINS),
        (rf"{FAILED}.*a recipe cannot hold dtype: dtype; declare numbers, strings.*{PLACE}",),
    ),
    Fault(
        "a config has a type that nobody imports",
        *(HEAD, "size: int", 'size: "Number"', PLUGINS),
        (rf"{FAILED}.*types of its config cannot be read: name 'Number' is not defined{PLACE}",),
    ),
    Fault(
        "a name is one of Joinery's",
        *(HEAD, 'register("faulty"', 'register("lstm"', ("run", "RECIPE", "")),
        (
            rf"policy_head\.name: .*'lstm': plugin 'plugins.heads.lstm' .* and plugin {WHO} have "
            "it; uninstall one, or rename its component",
        ),
    ),
    Fault(
        "the import changes torch's default dtype",
        *(HEAD, "@hookimpl", "torch.set_default_dtype(torch.float64)\n\n\n@hookimpl", PLUGINS),
        (rf"{FAILED}its import changed torch's default dtype .* to torch.float64.*: change",),
    ),
    Fault(
        "a command raises",
        *(EXPORTER, '"size"', '"height"', ("faulty",)),
        (rf"error: command 'faulty' of joinery-faulty 1.2: KeyError: 'height'{PLACE}",),
    ),
    # ------------------------------------------------------------------------ configs of a recipe
    Fault(
        "a check of the config raises a KeyError",
        *(HEAD, "size: int = 8", "size: int = 8\n\n    def __post_init__(self):\n        {}[0]"),
        HEAD_RUN,
        (rf"policy_head: Config\.__post_init__ raised KeyError: 0{PLACE}",),
    ),
    Fault(
        "a config holds what no recipe can",
        *(HEAD, "size: int = 8", "size: frozenset[int] = frozenset({8})", HEAD_RUN),
        (rf"policy_head\.size: a recipe cannot hold a frozenset, .* of plugin {WHO} .*; change",),
    ),
    # -------------------------------------------------------------------------------------- build
    Fault(
        "build asks for what is not offered",
        *(HEAD, "context, action", "context, action, width", HEAD_RUN),
        (
            rf"policy_head\.name: 'faulty' of plugin {WHO}: its build asks for width, and Joinery "
            rf"offers context, action beside the config{PLACE}; ",
        ),
    ),
    Fault(
        "build takes no config",
        *(HEAD, "self, config, *, context, action", "self", HEAD_RUN),
        (rf"{WHO}: its build must take a config, then any of context, action by name.*{PLACE}",),
    ),
    Fault(
        "build raises",
        *(HEAD, "nn.Linear(context.width", "nn.Linear(-context.width", HEAD_RUN),
        (
            rf"policy_head\.name: 'faulty' of plugin {WHO}: its build raised Runtime.*{PLACE}; "
            rf"{MEND}",
        ),
    ),
    Fault(
        "build needs a library that is missing",
        *(HEAD, "super().__init__()", "super().__init__()\n        import nosuchlib", HEAD_RUN),
        (rf"{WHO}: its build raised .*'nosuchlib'{PLACE}; install the library that offers 'no",),
    ),
    Fault(
        "build needs an extra that is missing",
        HEAD,
        "super().__init__()",
        'super().__init__()\n        core.import_optional("nosuchlib", "fancy")',
        HEAD_RUN,
        (r"nosuchlib cannot be imported .*: pip install 'joinery-faulty\[fancy\]'",),
    ),
    Fault(
        "build leaves the program",
        *(HEAD, "super().__init__()", "raise SystemExit('no licence')", HEAD_RUN),
        (rf"{WHO}: its build raised SystemExit: no licence{PLACE}; {MEND}",),
    ),
    Fault(
        "a head is not derived from its class",
        *(HEAD, "core.PolicyHead", "nn.Module", HEAD_RUN),
        (rf"'faulty' of plugin {WHO} built a Head, which is no PolicyHead; derive it from that",),
    ),
    Fault(
        "a head lacks a method",
        *(HEAD, "def loss", "def losses", HEAD_RUN),
        (rf"{WHO}: its build raised TypeError: .*abstract.* '?loss'?{PLACE}; {MEND}",),
    ),
    # ------------------------------------------------------------------------- what parts return
    Fault(
        "a head's layer does not fit",
        *(HEAD, "self.linear(context", "self.linear.weight @ (context", HEAD_RUN),
        (rf"policy_head 'faulty' of plugin {WHO}: it raised .*Error: .*{PLACE}; {MEND}",),
    ),
    Fault(
        "a loss is detached",
        *(HEAD, "batch.action_mask)", "batch.action_mask).detach()", HEAD_RUN),
        (rf"policy_head 'faulty' of plugin {WHO}.* without a gradient.*a term that trains",),
    ),
    Fault(
        "a loss is no dictionary",
        *(HEAD, "batch.action_mask)}", 'batch.action_mask)}["action"]', HEAD_RUN),
        (rf"policy_head 'faulty' of plugin {WHO}.*a dict with at least one term",),
    ),
    Fault(
        "a loss is no scalar",
        *(HEAD, "batch.action_mask)}", "batch.action_mask)[None]}", HEAD_RUN),
        (rf"policy_head 'faulty' of plugin {WHO}.*scalar",),
    ),
    Fault(
        "actions would be stretched",
        *(HEAD, "unflatten(-1, self.shape)", "unflatten(-1, self.shape)[:, :, :1]", HEAD_RUN),
        (rf"policy_head 'faulty' of plugin {WHO}",),
    ),
    Fault(
        "a loss is not a number",
        *(HEAD, "batch.action_mask)}", "batch.action_mask) * float('nan')}", HEAD_RUN),
        (r"step 1: not finite: .*action",),
    ),
    Fault(
        "a head changes in place what backward needs",
        HEAD,
        "actions = self(context, generator)",
        "actions = self(context, generator).exp()\n        actions *= actions.detach()",
        HEAD_RUN,
        (r"a part changes a tensor in place that the backward pass needs; in its code, write",),
    ),
    Fault(
        "an encoder forgets its cameras",
        *(VISION, "self.width, self.cameras = config.size, sorted(cameras)", "self.width = 8"),
        run_with("vision_encoder"),
        (rf"vision_encoder\.name: 'faulty' of plugin {WHO} must set self\.cameras",),
    ),
    Fault(
        "an encoder returns a bare tensor",
        *(VISION, "core.TokenGroup(", "(", run_with("vision_encoder")),
        (rf"vision_encoder 'faulty' of plugin {WHO}.*TokenGroup",),
    ),
    Fault(
        "a tokenizer raises",
        *(
            TEXT,
            "list(instruction.encode())",
            "[self.words[instruction]]",
            run_with("text_encoder"),
        ),
        (rf"text_encoder 'faulty' of plugin {WHO}: it raised AttributeError: .*{PLACE}; {MEND}",),
    ),
    Fault(
        "a backbone returns another width",
        *(BACKBONE, "Linear(config.size, config.size)", "Linear(config.size, 3)"),
        run_with("backbone"),
        (rf"backbone 'faulty' of plugin {WHO}",),
    ),
    Fault(
        "a layout raises",
        *(TOKENS, "proprio, batch, generator)\n\n", "proprio.no_such_thing, batch, generator)\n\n"),
        run_with("action_tokens"),
        (rf"action_tokens 'faulty' of plugin {WHO}: it raised AttributeError: .*{PLACE}; {MEND}",),
    ),
    Fault(
        "an optimizer is none",
        *(OPTIMIZER, "torch.optim.SGD(groups, lr=0.1)", "None", run_with("optimizer")),
        (rf"optimizer\.name: 'faulty' of plugin {WHO}: it built a NoneType",),
    ),
    # ------------------------------------------------------------------------------------- worlds
    Fault(
        "an expert gives another number of values",
        *(WORLD, "super().expert()", "np.zeros(2)", COLLECT),
        (
            r"environment broke in each of 3 attempts, the last one reach_red/2: after 0 steps: "
            rf"World\.expert returned an action of shape \(2,\) instead of \(3,\);.*{PLACE}; mend",
        ),
    ),
    Fault(
        "an expert is not finite",
        *(WORLD, "super().expert()", "np.full(3, np.nan)", COLLECT),
        (rf"broke in each of 3 .*World\.expert returned \[nan, nan, nan\]; .*{PLACE}; mend",),
    ),
    Fault(
        "a step says nothing",
        *(WORLD, "return super().step(action)", "super().step(action)", COLLECT),
        (rf"broke in each of 3 .*World\.step returned None; it must return.*{PLACE}; mend",),
    ),
    Fault(
        "a camera is misnamed",
        WORLD,
        "return super().observe()",
        'return Observation({"tip": None}, super().observe().proprio)',
        COLLECT,
        (rf"broke in each of 3 .*observe .*: no camera 'front'; known: tip{PLACE}; mend",),
    ),
    Fault(
        "an expert raises",
        *(WORLD, "super().expert()", "self.plan[0]", COLLECT),
        (rf"environment broke in each of 3 attempts, .*raised \(AttributeError.*{PLACE}\); mend",),
    ),
    Fault(
        "an expert stands still",
        *(WORLD, "super().expert()", "np.array([0, 0, 1.0])", COLLECT),
        (r"the expert succeeded in 0 of 50 episodes; lower the noise, or leave the task out",),
    ),
    Fault(
        "an expert without noise stands still",
        *(WORLD, "super().expert()", "np.array([0, 0, 1.0])", (*COLLECT[:-1], "0")),
        (r"0 of 50 episodes; mend the expert, which acted without noise, or raise the task's max",),
    ),
    Fault(
        "a simulator is missing",
        WORLD,
        "class World(ToyEnvironment):",
        "class World(ToyEnvironment):\n    def __init__(self, config):\n        import nosuchsim\n",
        COLLECT,
        (rf"environment 'faulty' of plugin {WHO} cannot be built: it raised .*nosuchsim'{PLACE}",),
    ),
    Fault(
        "a world is not derived from its class",
        *(WORLD, "class World(ToyEnvironment):", "class World:\n    __init__ = print\n", COLLECT),
        (
            rf"environment 'faulty' of plugin {WHO}: its build made a World, which is not derived "
            rf"from core\.environments\.Environment{PLACE}",
        ),
    ),
    # ------------------------------------------------------------------------------------ formats
    Fault(
        "a dataset lacks a method",
        *(DATASET, "def ids", "def names", IMPORT),
        (rf"format 'faulty' of plugin {WHO} built a Source without ids{PLACE}; choose another",),
    ),
    Fault(
        "a dataset asks for what is not offered",
        *(DATASET, "*, source", "*, path, source", IMPORT),
        (rf"format 'faulty' of plugin {WHO}: its build asks for path, and Joinery offers source",),
    ),
    Fault(
        "reading raises",
        *(DATASET, "self.store[self.ids", "self.shop[self.ids", IMPORT),
        (rf"dataset 'faulty' of plugin {WHO}: it raised AttributeError: .*{PLACE}; {MEND}",),
    ),
    Fault(
        "an exporter lacks a method",
        *(EXPORTER, "def finish", "def end", WRITE),
        (rf"format 'faulty' of plugin {WHO} built a Sink without finish{PLACE}; choose another",),
    ),
    Fault(
        "writing raises",
        *(EXPORTER, "episode.id", "episode.name", WRITE),
        (rf"exporter 'faulty' of plugin {WHO}: it raised AttributeError: .*{PLACE}; {MEND}",),
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("faulty") / "episodes.zarr").path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Install a module as the plugin of a package, until the test ends."""

    def install(source: str) -> None:
        site = tmp_path / "site"
        package = site / "joinery_faulty-1.2.dist-info"
        package.mkdir(parents=True)
        (package / "METADATA").write_text(METADATA)
        (package / "entry_points.txt").write_text(ENTRY_POINTS)
        (package / "top_level.txt").write_text("faulty\n")
        (site / "faulty.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    load_plugins.cache_clear()
    yield install
    sys.modules.pop("faulty", None)
    load_plugins.cache_clear()


def recipe_of(fault: Fault, store: Path, folder: Path) -> list[str]:
    """Return the words of a run of a small recipe, with the faulty component in one section."""
    words = ["run", str(folder / "small.toml"), "train.steps=3", "--output", str(folder / "run")]
    text = RECIPE.replace('"episodes.zarr"', f'"{store}"')
    if section := fault.words[-1]:
        kept = text.partition(f"[{section}]")
        rest = kept[2].partition("\n[")
        name = f'[{section}]\nname = "faulty"\n'
        text = f"{kept[0]}{rest[1]}{rest[2]}\n{name}"
    (folder / "small.toml").write_text(text)
    return words


def test_the_sound_plugins_run(
    store: Path, tmp_path: Path, install: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """So that each fault below is what its message is about."""
    install(HEAD)
    fault = Fault("", HEAD, "", "", HEAD_RUN, ())
    assert cli.main(recipe_of(fault, store, tmp_path)) == 0
    assert "policy_head" in (tmp_path / "run" / "packages.json").read_text()
    assert cli.main(["plugins"]) == 0
    assert "FAILED" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_a_line_that_names_the_plugin_and_the_remedy(
    fault: Fault,
    store: Path,
    tmp_path: Path,
    install: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fault.source.count(fault.old) >= 1
    install(fault.source.replace(fault.old, fault.new))
    paths = {"STORE": str(store), "OUT": str(tmp_path / "out.zarr")}
    words = [paths.get(word, word) for word in fault.words]
    if words[0] == "run":
        words = recipe_of(fault, store, tmp_path)
    code = cli.main(words)
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert (code == 0) == (words[0] == "plugins"), text
    assert "Traceback" not in text
    for pattern in fault.seen:
        assert re.search(pattern, text), text
    assert torch.get_default_dtype() == torch.float32


def test_no_fault_reaches_the_schema(
    install: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    install(HEAD.replace("size: int = 8", "dtype: torch.dtype = torch.float32\n\n\nprint('hello')"))
    assert cli.main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    heads = schema["properties"]["policy_head"]["oneOf"]
    names = [head["properties"]["name"]["const"] for head in heads]
    assert "lstm" in names
    assert "faulty" not in names


def test_the_traceback_is_there_for_the_author(
    store: Path,
    tmp_path: Path,
    install: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JOINERY_TRACEBACK", "1")
    install(HEAD.replace("def forward(self, context, generator):", f"{FORWARD}{{}}['size']"))
    fault = Fault("", HEAD, "", "", HEAD_RUN, ())
    assert cli.main(recipe_of(fault, store, tmp_path)) == 1
    shown = capsys.readouterr().err
    assert "Traceback (most recent call last)" in shown
    assert "{}['size']" in shown
