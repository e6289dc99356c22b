"""`joinery tokenizer fast`: from a recipe's data to the file that its head names."""

import re
import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import core
from plugins.heads.tokens.fast_tokenizer import FastTokenizer, fill_masked, fit
from plugins.heads.tokens.fit_command import main
from plugins.text import tokenizer as text_tokenizer
from tests.core.training.conftest import RECIPE
from tests.factories import make_store

pytest.importorskip("tokenizers", reason="the extra 'fast' is not installed")

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
HEAD = '[policy_head]\nname = "fast"\ntokenizer = "fast.json"\n'
SMALL = ["--vocabulary", "80", "--scale", "5"]


@pytest.fixture
def recipe(tmp_path):
    """A recipe beside its store; the tokenizer that it names is not there yet."""
    make_store(tmp_path / "episodes.zarr")
    path = tmp_path / "small.toml"
    path.write_text(RECIPE.partition("[policy_head]")[0] + HEAD)
    return path


def test_it_is_fitted_to_the_normalised_chunks_of_the_training_data(recipe, tmp_path, capsys):
    out, overrides = tmp_path / "fast.json", ["data.window=1", "action.horizon=4"]
    assert main([str(recipe), str(out), *overrides, *SMALL]) == 0
    samples = core.training_samples(core.load_recipe(recipe, overrides))
    chunks = np.concatenate([fill_masked(s.targets, s.action_mask) for s in samples])
    masked = np.array([not s.action_mask.any() for s in samples])
    fit(chunks[~masked], scale=5, vocabulary=80).save(tmp_path / "expected.json")
    assert out.read_bytes() == (tmp_path / "expected.json").read_bytes()
    tokenizer = FastTokenizer.load(out)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{tokenizer.size} tokens from {(~masked).sum()} chunks of 4 x" in printed
    assert f"at most {tokenizer.longest}," in printed


def test_few_chunks_are_spread_over_the_data(recipe, tmp_path, capsys):
    assert main([str(recipe), str(tmp_path / "few.json"), "--chunks", "20", *SMALL]) == 0
    printed = re.search(r"tokens from (\d+) chunks", capsys.readouterr().out)
    assert 15 <= int(printed[1]) <= 20  # some may be masked as a whole


def test_a_run_trains_and_keeps_its_tokenizer(recipe, tmp_path):
    assert main([str(recipe), str(tmp_path / "fast.json"), *SMALL]) == 0
    run = core.train(core.load_recipe(recipe, ["train.steps=2"]), tmp_path / "run")
    (tmp_path / "fast.json").unlink()
    policy = core.load_policy(run)
    store = core.open_store(tmp_path / "episodes.zarr")
    episode = store[0]
    images = {name: frames[0] for name, frames in episode.images.items()}
    observation = core.environments.Observation(images, episode.proprio[0])
    actions = policy.act(observation, episode.instruction)
    assert actions.shape == (2, store.info.action.dim)
    assert np.isfinite(actions).all()


# --------------------------------------------------------------------------------------- mistakes


def refused(arguments, capsys):
    """Return the one line that a mistake prints."""
    assert main([str(argument) for argument in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_an_existing_file_is_kept(recipe, tmp_path, capsys):
    out = tmp_path / "fast.json"
    out.write_bytes(b"precious")
    assert "choose another name" in refused([recipe, out], capsys)
    assert out.read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_named(recipe, tmp_path, capsys):
    assert "nowhere" in refused([recipe, tmp_path / "nowhere" / "fast.json", *SMALL], capsys)


def test_data_that_are_missing_are_named(recipe, tmp_path, capsys):
    line = refused([recipe, tmp_path / "fast.json", "data.path=none.zarr"], capsys)
    assert "data.path" in line


def test_a_scale_that_is_too_large_says_what_would_do(recipe, tmp_path, capsys):
    line = refused([recipe, tmp_path / "fast.json", *SMALL[:2], "--scale", "1000"], capsys)
    assert "--vocabulary" in line
    assert "--scale" in line


@pytest.mark.parametrize("option", ["--scale=0", "--scale=nan", "--scale=x", "--vocabulary=0"])
def test_a_nonsensical_number_is_refused(recipe, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as stop:
        main([str(recipe), str(tmp_path / "fast.json"), option])
    assert stop.value.code == 2
    assert f"{option.partition('=')[0]}: expected" in capsys.readouterr().err


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def installed(monkeypatch):
    """Let `joinery tokenizer` find the kinds of pyproject.toml, whatever is installed."""
    groups = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]
    kinds = groups[text_tokenizer.KINDS]
    entries = EntryPoints(EntryPoint(n, v, text_tokenizer.KINDS) for n, v in kinds.items())
    monkeypatch.setattr(text_tokenizer, "entry_points", lambda group: entries)


@pytest.mark.usefixtures("installed")
def test_joinery_tokenizer_calls_it(recipe, tmp_path, capsys):
    assert text_tokenizer.main(["fast", str(recipe), str(tmp_path / "fast.json"), *SMALL]) == 0
    assert FastTokenizer.load(tmp_path / "fast.json").horizon == 2
    with pytest.raises(SystemExit) as stop:
        text_tokenizer.main(["--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    assert "train" in help_text
    assert "joinery tokenizer fast --help" in help_text
