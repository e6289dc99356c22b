"""`train.compile`: equal results, equal names of weights, and a line where nothing compiles.

Most tests let torch.compile trace the blocks and run the traced operators one by one, because
generating code takes a minute.
"""

import shutil

import pytest
import torch
from safetensors import safe_open
from torch import nn

from core import ConfigError, TrainingError, load_policy
from core.contracts.generator import TRAINING, Generator
from core.training.compilation import compilation_explained, compile_blocks
from core.weights.checkpoint import checkpoints
from tests import strangers
from tests.core.training.runs import metrics, train

# PyTorch's compiler warns about its own modules, and looks at attributes that warn
pytestmark = pytest.mark.filterwarnings("ignore")
EXACT = ["backbone.dropout=0.0", "train.steps=4", "backbone.depth=2"]


@pytest.fixture
def traced(monkeypatch):
    """Count the compiled modules."""
    compiled = []

    def compile_traced(module):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="aot_eager")

    monkeypatch.setattr(nn.Module, "compile", compile_traced)
    monkeypatch.setattr("core.training.compilation._raise_without_compiler", lambda device: None)
    return compiled


def names(folder):
    with safe_open(checkpoints(folder)[-1].folder / "model.safetensors", "pt") as file:
        return sorted(file.keys())


@pytest.mark.slow
def test_a_compiled_run_agrees_with_one_that_is_not(recipe_file, tmp_path, traced, capsys):
    settings = [*EXACT, "train.ema=0.9", "vision_encoder.gradient_checkpointing=true"]
    assert train(recipe_file, tmp_path / "plain", *settings) == 0
    assert not traced
    assert train(recipe_file, tmp_path / "compiled", *settings, "train.compile=true") == 0
    assert (
        "compiled: 1 blocks of vision_encoder\ncompiled: 2 blocks of backbone\n"
        in capsys.readouterr().out
    )
    assert len(traced) == 3
    assert names(tmp_path / "compiled") == names(tmp_path / "plain")
    plain, compiled = metrics(tmp_path / "plain"), metrics(tmp_path / "compiled")
    for step, values in plain.items():
        assert compiled[step] == pytest.approx(values, rel=1e-3, abs=1e-4)
    load_policy(tmp_path / "compiled")  # acts without compiling


@pytest.mark.slow
def test_a_compiled_run_with_adapters_resumes_to_the_bit(recipe_file, tmp_path, traced):
    assert train(recipe_file, tmp_path / "base", "train.steps=2") == 0
    settings = ["train.compile=true", f"backbone.pretrained={tmp_path / 'base'}"]
    settings += ["backbone.train=lora", "train.steps=4"]
    for folder in (tmp_path / "whole", tmp_path / "halves"):
        assert train(recipe_file, folder, *settings) == 0
    assert traced
    shutil.rmtree(checkpoints(tmp_path / "halves")[-1].folder)
    assert train(recipe_file, tmp_path / "halves", *settings, resume=True) == 0
    assert metrics(tmp_path / "halves") == metrics(tmp_path / "whole")


@pytest.mark.slow
def test_generated_code_agrees_with_the_operators(tmp_path, monkeypatch):
    policy = strangers.build(tmp_path, 'name = "regression"', "backbone.depth=1")
    batch = strangers.batch_of(policy)
    # its blocks have several sizes, which take long
    monkeypatch.setattr(type(policy.vision_encoder), "blocks", [])
    key = (TRAINING, 0)

    def readout():
        with torch.no_grad():
            return policy.context(batch, Generator.shared(key, torch.device("cpu"))).readout

    expected = readout()
    assert compile_blocks(policy, torch.device("cpu")) == {"backbone": 1}
    torch.testing.assert_close(readout(), expected)


def test_without_blocks_there_is_nothing_to_compile(tmp_path):
    policy = strangers.build(tmp_path, 'name = "regression"')
    policy.backbone, policy.vision_encoder = nn.Identity(), nn.Identity()
    with pytest.raises(ConfigError, match=r"^train.compile: no part has repeated blocks"):
        compile_blocks(policy, torch.device("cpu"))


def test_without_a_compiler_a_line_says_what_to_install(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(ConfigError) as failure:
        compile_blocks(strangers.build(tmp_path, 'name = "regression"'), torch.device("cpu"))
    assert str(failure.value) == (
        "train.compile: nothing can be compiled on this machine: No working C++ compiler found; "
        "install a C++ compiler (on Debian and Ubuntu: apt install g++), or set "
        "train.compile = false"
    )


def test_a_backend_that_fails_ends_a_run_in_one_line(recipe_file, tmp_path, monkeypatch, capsys):
    def backend(graph, inputs):
        raise NotImplementedError("no such op")

    def compile_failing(module):
        module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)

    monkeypatch.setattr(nn.Module, "compile", compile_failing)
    monkeypatch.setattr("core.training.compilation._raise_without_compiler", lambda device: None)
    assert train(recipe_file, tmp_path / "run", "train.compile=true") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "train.compile: PyTorch cannot compile a part: " in line
    assert line.endswith("set train.compile = false")


def test_the_blocks_compiled_for_a_training_have_its_sizes(recipe_file, tmp_path, monkeypatch):
    dynamic = []

    def backend(graph, inputs):
        sizes = [n for x in inputs if isinstance(x, torch.Tensor) for n in x.shape]
        dynamic.append(any(isinstance(n, torch.SymInt) for n in (*inputs, *sizes)))
        return graph.forward

    def compile_noting(module):
        module._compiled_call_impl = torch.compile(module._call_impl, backend=backend)

    torch._dynamo.reset()
    monkeypatch.setattr(nn.Module, "compile", compile_noting)
    monkeypatch.setattr("core.training.compilation._raise_without_compiler", lambda device: None)
    settings = ("train.steps=1", "train.warmup_steps=0", "data.validation_episodes=0")
    assert train(recipe_file, tmp_path / "run", *settings, "train.compile=true") == 0
    assert dynamic
    assert not any(dynamic)


def test_an_error_of_the_compiler_is_one_line():
    from torch._dynamo.exc import BackendCompilerFailed

    with (
        pytest.raises(
            TrainingError, match=r"^train.compile: PyTorch cannot compile a part.*false$"
        ),
        compilation_explained(),
    ):
        raise BackendCompilerFailed(lambda: None, RuntimeError("no such op"), None)
    with pytest.raises(KeyError), compilation_explained():
        raise KeyError("not of the compiler")
