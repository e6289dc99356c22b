"""Opening published weights and loading them into a part: every layout, and every way to fail."""

import json

import huggingface_hub
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file
from torch import nn

from core.errors import ConfigError
from core.weights.pretrained import NameMap, Pretrained, filter_keys, strip_prefix

NAMES = NameMap(
    {
        "embedding": "embed",
        "layers.*.qkv": ("blocks.*.q", "blocks.*.k", "blocks.*.v"),
        "start": "first",
    },
    squeeze=frozenset({"start"}),
)


class Part(nn.Module):
    def __init__(self, width=4, depth=2):
        super().__init__()
        self.start = nn.Parameter(torch.randn(1, 1, width))
        self.embedding = nn.Embedding(5, width)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"qkv": nn.Linear(width, 3 * width)}) for _ in range(depth)
        )


@given(width=st.integers(2, 6), depth=st.integers(1, 12))
@settings(deadline=None)
def test_what_is_published_fills_another_part_with_the_same_numbers(width, depth):
    part, other = Part(width, depth), Part(width, depth)
    published = NAMES.publish(part.state_dict())
    assert len(published) == 2 + depth * 6
    assert published["first"].shape == (width,)
    assert published[f"blocks.{depth - 1}.k.weight"].shape == (width, width)
    NAMES.load(other, published, "there")
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in part.state_dict().items())


def test_a_tensor_without_a_published_name_is_a_mistake_of_the_table():
    with pytest.raises(KeyError, match=r"lacks 'strange\.weight'"):
        NAMES.publish({"strange.weight": torch.zeros(1)})


def tensors():
    return {f"t{i}": torch.full((2, 3), float(i)) for i in range(6)}


def write(folder, layout):
    """The same six tensors in one of the layouts of the hub."""
    files = {"a": ["t0", "t1", "t2"], "b": ["t3", "t4", "t5"]}
    suffix = "safetensors" if "safetensors" in layout else "bin"
    save = save_file if suffix == "safetensors" else torch.save
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    if "shards" in layout:
        for name, members in files.items():
            save({t: tensors()[t] for t in members}, folder / f"{stem}-{name}.{suffix}")
        where = {t: f"{stem}-{name}.{suffix}" for name, members in files.items() for t in members}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))
    else:
        save(tensors(), folder / f"{stem}.{suffix}")


@pytest.mark.parametrize("layout", ["safetensors", "bin", "safetensors shards", "bin shards"])
def test_every_layout_of_the_hub_is_read(layout, tmp_path):
    write(tmp_path, layout)
    opened = Pretrained(str(tmp_path)).tensors
    assert sorted(opened) == sorted(tensors())
    assert all(torch.equal(opened[name], x) for name, x in tensors().items())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_the_weights_inside_a_training_checkpoint_are_found(key, tmp_path):
    torch.save(
        {"epoch": 3, key: {f"module.{name}": x for name, x in tensors().items()}},
        tmp_path / "x.ckpt",
    )
    assert sorted(Pretrained(str(tmp_path / "x.ckpt")).tensors) == sorted(tensors())


def test_select_and_below_read_nothing_until_asked(tmp_path):
    write(tmp_path, "safetensors")
    opened = Pretrained(str(tmp_path)).tensors
    assert list(filter_keys(opened, lambda name: name == "t3")) == ["t3"]
    short = strip_prefix(opened, "t")
    assert sorted(short) == list("012345")
    assert torch.equal(short["5"], tensors()["t5"])


def test_what_parts_share_is_made_once(tmp_path):
    made = []
    weights = Pretrained(str(tmp_path))

    def make(path):
        made.append(path)
        return object()

    assert weights.once(make) is weights.once(make)
    assert made == [tmp_path]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no weights"),
        ("{}", "cannot read"),
        ('{"weight_map": {"t0": "gone.safetensors"}}', "gone.safetensors"),
        (
            '{"weight_map": {"t9": "model-a.safetensors"}}',
            "names tensors that are not there: t9 in",
        ),
        ("[1]", "cannot read"),
    ],
)
def test_a_broken_folder_is_named(content, message, tmp_path):
    if content is not None:
        write(tmp_path, "safetensors shards")
        (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        dict(Pretrained(str(tmp_path)).tensors)
    assert str(caught.value).startswith("pretrained: ")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_nowhere_says_why(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match="'no such name' is no file or folder"):
        Pretrained("no such name").path  # noqa: B018


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for the Hugging Face hub, with one repository; what was asked of it is a list."""
    cached, requests = tmp_path / "cache", []

    def snapshot_download(name, local_files_only=False, **patterns):
        if local_files_only and not cached.exists():
            raise huggingface_hub.errors.LocalEntryNotFoundError(name)
        if not local_files_only:
            requests.append(name)
            cached.mkdir(exist_ok=True)
            write(cached, "safetensors shards")
        return str(cached)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return cached, requests


def test_what_is_on_this_machine_is_not_asked_for_again(hub, capsys):
    cached, requests = hub
    assert Pretrained("someone/model").tensors.keys() == tensors().keys()
    assert capsys.readouterr().err == (
        "pretrained: fetching 'someone/model' from the Hugging Face hub\n"
    )
    assert Pretrained("someone/model").tensors.keys() == tensors().keys()
    assert requests == ["someone/model"]
    assert capsys.readouterr().err == ""
    (cached / "model-a.safetensors").unlink()
    assert Pretrained("someone/model").tensors.keys() == tensors().keys()
    assert requests == ["someone/model"] * 2, "a download that broke off goes on"
