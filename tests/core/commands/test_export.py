"""The command: what it refuses; exported weights are tested where they are written."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from core.commands.export import main


@pytest.mark.parametrize("name", ["folder", "file.ckpt"])
def test_an_existing_file_is_never_touched(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file.ckpt").write_text("mine")
    assert main([str(tmp_path / "run"), str(tmp_path / name)]) == 1
    expected = f"error: {tmp_path / name}: is there already; name another or remove it\n"
    assert capsys.readouterr().err == expected
    assert (tmp_path / "file.ckpt").read_text() == "mine"


def test_adapters_are_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "run"), str(tmp_path / "out.ckpt"), "--adapters"]) == 1
    assert "--adapters writes a folder; name one, or leave it out" in capsys.readouterr().err


def test_a_checkpoint_has_a_name_or_a_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path / "run"), str(tmp_path / "out"), "--checkpoint", "first"])
    message = "argument --checkpoint: expected last, best, or the step of a checkpoint, got 'first'"
    assert message in capsys.readouterr().err


def test_adapters_name_the_published_model_where_it_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.toml").write_text(
        '[data]\npath = "unused.zarr"\n[vision_encoder]\nname = "timm_vit"\n'
        'model = "test_vit"\npretrained = "/former/vit"\n[text_encoder]\nname = "none"\n'
        '[backbone]\nname = "transformer"\n[action_tokens]\nname = "learned"\n'
        '[policy_head]\nname = "lstm"\n'
    )
    (tmp_path / "vit").mkdir()
    sources = []
    monkeypatch.setattr(
        "core.rollout.actor.load_actor", lambda *_, **__: SimpleNamespace(policy=None)
    )
    monkeypatch.setattr(
        "core.policy.peft_folder.export_adapters",
        lambda _, recipe, __: sources.append(recipe.parts["vision_encoder"].settings.pretrained),
    )
    moved = ["--adapters", "--moved", f"/former/vit={tmp_path}/vit"]
    assert main([str(tmp_path / "run"), str(tmp_path / "out"), *moved]) == 0
    assert sources == [f"{tmp_path}/vit"]
