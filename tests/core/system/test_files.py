import os
from pathlib import Path

import pytest

from core.errors import DataError
from core.system import files
from core.system.files import complete_lines, remove, sync, tree, written_aside


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with written_aside(path, durable=durable) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.name.startswith(".")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("durable", [False, True])
def test_a_folder_appears_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "folder"
    with written_aside(path, durable=durable) as temporary:
        (temporary / "inner").mkdir(parents=True)
        (temporary / "inner" / "file").write_text("content")
        assert not path.exists()
    assert (path / "inner" / "file").read_text() == "content"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_exception_keeps_the_old_file_and_leaves_nothing(
    tmp_path: Path, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with written_aside(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_empty_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "file").write_text("old")

    def write() -> None:
        with written_aside(path) as temporary:
            temporary.mkdir()

    with pytest.raises(OSError, match="not empty"):
        write()
    assert [file.name for file in tree(tmp_path)] == ["folder", "file", tmp_path.name]


def test_durable_flushes_the_contents_before_and_the_folder_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, steps = tmp_path / "folder", list[str]()
    rename = os.replace

    def record_sync(*paths: Path) -> None:
        names = sorted(str(p.relative_to(tmp_path)) for p in paths)
        steps.append(
            f"sync {len(names)}" if path not in paths and len(names) > 1 else "sync parent"
        )

    def record_rename(source: Path, target: Path) -> None:
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(files, "sync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    with written_aside(path, durable=True) as temporary:
        temporary.mkdir()
        (temporary / "file").write_text("content")
    assert steps == ["sync 2", "rename", "sync parent"]


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("content")
    (tmp_path / "file").write_text("content")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("kept")
    for name in ("file", "folder", "link", "missing"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "file").exists()


def test_sync_takes_files_and_folders_and_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    sync(tmp_path / "file", tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        sync(tmp_path / "missing")


def test_a_tree_ends_with_its_root(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("content")
    paths = list(tree(tmp_path))
    assert paths[-1] == tmp_path
    assert set(paths) == {tmp_path, tmp_path / "folder", tmp_path / "folder" / "file"}
    assert list(tree(tmp_path / "folder" / "file")) == [tmp_path / "folder" / "file"]


@pytest.mark.parametrize("rest", ["", '{"step": 3', '{"step": 3}'])
def test_an_incomplete_last_line_is_left_out(tmp_path: Path, rest: str) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n' + rest)
    assert complete_lines(file) == ['{"step": 1}\n', '{"step": 2}\n']
    assert complete_lines(tmp_path / "missing.jsonl") == []


def test_lines_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\x80\x04\x95")
    with pytest.raises(DataError, match=r"lines\.jsonl: damaged, it holds no text"):
        complete_lines(file)


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path: Path) -> None:
    leftovers = [tmp_path / f".results[1].json.{unique}" for unique in ("ab", "cd")]
    others = [tmp_path / name for name in ("results[1].json", ".results1.json.ab", ".other.ab")]
    for file in (*leftovers, *others):
        file.touch()
    files.remove_leftovers(tmp_path / "results[1].json")
    assert sorted(tmp_path.iterdir()) == sorted(others)
