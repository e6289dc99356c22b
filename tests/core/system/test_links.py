"""What lies in a stranger's folder leads nowhere else."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import DataError
from core.system.links import check_run, inside, open_to_append, refuse_links_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a folder and links of all kinds; beside it lies what is the user's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("precious")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "file").write_text("content")
    (folder / "inner" / "file").write_text("content")
    return folder


def test_a_path_inside_is_returned(folder: Path) -> None:
    assert inside(folder, "file") == folder / "file"
    assert inside(folder, "inner", "file") == folder / "inner" / "file"
    assert inside(folder, "not/there/yet") == folder / "not" / "there" / "yet"
    (folder / "link").symlink_to("inner/file")
    (folder / "inner" / "up").symlink_to(folder)
    assert inside(folder, "link").read_text() == "content"
    assert inside(folder, "inner", "up", "link").read_text() == "content"
    (folder / "broken").symlink_to("nothing")
    assert inside(folder, "broken") == folder / "broken"
    refuse_links_out(folder)


@pytest.mark.parametrize(
    "target",
    ["../../mine", "/etc", "../inner/../../mine", "../../mine/not there yet", "../../folders"],
)
def test_a_link_that_leads_out_is_not_followed(folder: Path, target: str) -> None:
    (folder / "inner" / "link").symlink_to(target)
    for check in (
        lambda: inside(folder, "inner", "link"),
        lambda: inside(folder, "inner/link/letter"),
        lambda: refuse_links_out(folder),
        lambda: refuse_links_out(folder, descend=["inner"]),
    ):
        with pytest.raises(
            DataError, match=r"inner/link: a link that leads out of .*cp -rL"
        ) as error:
            check()
        assert "\n" not in str(error.value)


def test_the_folder_itself_and_those_above_may_be_links(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere" / "folder")
    (folder / "link").symlink_to("file")
    assert inside(tmp_path / "run", "link").read_text() == "content"
    refuse_links_out(tmp_path / "run")


@pytest.mark.parametrize("name", ["..", "../mine/letter", "/etc/passwd", "inner/../../mine"])
def test_a_name_that_leads_out_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(DataError, match="which lies outside; correct the name"):
        inside(folder, name)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_can_never_be_read_to_its_end_is_refused(
    folder: Path, make: Callable[[Path], None]
) -> None:
    make(folder / "endless")
    for check in (lambda: inside(folder, "endless"), lambda: refuse_links_out(folder)):
        with pytest.raises(DataError, match="endless: "):
            check()


def test_links_that_lead_in_a_circle_are_left_to_who_opens_them(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    assert inside(folder, "a") == folder / "a"
    refuse_links_out(folder)


def test_folders_of_loggers_may_hold_links_and_may_be_none(folder: Path, tmp_path: Path) -> None:
    """W&B links its log, which lies in the user's cache."""
    (folder / "inner" / "log").symlink_to(tmp_path / "mine" / "letter")
    check_run(folder)
    (folder / "evaluation").mkdir()
    check_run(folder)
    (folder / "evaluation" / "rollouts").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="rollouts: a link"):
        check_run(folder)
    (folder / "evaluation" / "rollouts").unlink()
    (folder / "tensorboard").symlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="tensorboard: a link"):
        check_run(folder)
    refuse_links_out(tmp_path / "no such folder")


def test_lines_are_appended_to_files_alone(folder: Path, tmp_path: Path) -> None:
    for name, expected in (("file", b"content\n"), ("new", b"\n")):
        with open_to_append(folder / name) as file:
            assert file.name == str(folder / name)  # messages name the file
            file.write(b"\n")
        assert (folder / name).read_bytes() == expected
    (folder / "link").symlink_to(tmp_path / "mine" / "letter")
    with pytest.raises(OSError, match="is a link, which is not written to; remove it"):
        open_to_append(folder / "link")
    assert (tmp_path / "mine" / "letter").read_text() == "precious"
