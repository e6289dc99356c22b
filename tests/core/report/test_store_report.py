"""The page about a store: what it shows, what it escapes, and how large it may be."""

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from core.episodes.episode import Camera, StoreInfo
from core.errors import DataError
from core.report import store_report
from core.report.store_films import choose_episodes
from core.report.store_inspection import inspect
from core.report.store_report import write_store_page
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.factories import make_episode, make_info, make_store

EVIL = "<script>document.title='owned'</script>'\"&{{ 7 * 7 }}"


def page_of(store: EpisodeStore, path: Path, max_bytes: int = 20_000_000) -> str:
    write_store_page(store, inspect(store), choose_episodes(store, None), path, max_bytes)
    return path.read_text(encoding="utf-8")


def noisy_store(path: Path, info: StoreInfo, episodes: int, length: int = 30) -> EpisodeStore:
    """Every episode a task of its own; images of noise, which no codec makes small."""
    random = np.random.default_rng(0)
    with StoreWriter(path, info) as writer:
        for number in range(episodes):
            made = make_episode(number, info, length)
            images = {
                name: random.integers(0, 256, (length, camera.height, camera.width, 3), np.uint8)
                for name, camera in info.cameras.items()
            }
            writer.append(replace(made, images=images, task=f"task {number}"))
    return EpisodeStore(path)


def test_the_same_store_gives_the_same_page(store: EpisodeStore, tmp_path: Path) -> None:
    first, second = (page_of(store, tmp_path / f"{number}.html") for number in range(2))
    assert first == second
    assert list(tmp_path.glob(".*")) == []


def test_a_page_shows_all_that_is_known(store: EpisodeStore, tmp_path: Path) -> None:
    text = re.sub(
        r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page_of(store, tmp_path / "page.html")))
    )
    for expected in (
        f"episodes {len(store)} of 2 tasks, 11 to 15 frames",
        f"frames {store.frame_count} 7.6 s at 10 Hz",
        "cameras 2 front, wrist",
        "Nothing looks suspicious.",
        "reach the red cube",
        "made for tests",
        "gripper: -1 closed, 1 open",
        "action x 1.0 is 0.02 m",
        "proprio p2 unit not recorded",
        "mode delta frame world rotation none rate 10 Hz grippers gripper, binary",
        "wrist 32 pixels high, 32 wide, jpeg",
        "reach/0, 11 frames, 1.1 s",
        f"6 of {len(store)} episodes, at 10 frames a second",
    ):
        assert expected in text, expected
    s = store.statistics["proprio"]
    row = (s.min, s.quantile(0.01), s.mean, s.std, s.quantile(0.99), s.max)
    assert "unit not recorded " + " ".join(f"{value[2]:.4g}" for value in row) in text


def test_suspicions_come_first(tmp_path: Path) -> None:
    info = make_info()
    with StoreWriter(tmp_path / "store.zarr", info) as writer:
        made = make_episode(0, info)
        writer.append(made)
        writer.append(replace(made, id="<again>"))
    text = page_of(EpisodeStore(tmp_path / "store.zarr"), tmp_path / "page.html")
    assert "<li>1 episodes have the very actions of another: &lt;again&gt; as reach/0</li>" in text


def test_text_of_a_store_is_escaped(tmp_path: Path) -> None:
    info = make_info()
    action = replace(info.action, names=(EVIL, "$x$", "y\nz", "手"))
    info = replace(info, action=action, proprio=(EVIL, "b", "c"), origin=EVIL)
    with StoreWriter(tmp_path / "<b>.zarr", info) as writer:
        writer.append(replace(make_episode(0, info), id=EVIL, task=EVIL, instruction=EVIL))
    text = page_of(EpisodeStore(tmp_path / "<b>.zarr"), tmp_path / "page.html")
    assert text.count("<script>") == 1
    assert "'owned'</script>" not in text
    assert "<b>" not in text.replace('<b style="', "")
    assert "49" not in re.findall(r"&amp;(\d+)", text)


@pytest.mark.parametrize("max_bytes", [1_000_000, 2_500_000])
def test_a_page_is_no_larger_than_allowed(tmp_path: Path, max_bytes: int) -> None:
    info = make_info(("front", "wrist", "side"), size=64)
    store = noisy_store(tmp_path / "store.zarr", info, 9)
    text = page_of(store, tmp_path / "page.html", max_bytes)
    assert max_bytes / 2 < len(text.encode()) <= max_bytes


def test_a_page_that_cannot_be_small_enough_is_refused(tmp_path: Path) -> None:
    store = noisy_store(
        tmp_path / "store.zarr", replace(make_info(), cameras={"front": Camera(64, 64)}), 9
    )
    path = tmp_path / "page.html"
    path.write_text("the page before")
    with pytest.raises(
        DataError, match=r"page.html: 9 episodes would make a page of .* MB, of at most 0.05; name"
    ):
        page_of(store, path, 50_000)
    assert path.read_text() == "the page before"


def test_many_tasks_and_dimensions_are_cut_short_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_report, "MAX_TASKS", 5)
    monkeypatch.setattr(store_report, "MAX_THUMBNAIL_TASKS", 2)
    monkeypatch.setattr(store_report, "MAX_DIMENSIONS", 3)
    store = noisy_store(tmp_path / "store.zarr", make_info(size=16, proprio=5), 7, length=3)
    text = page_of(store, tmp_path / "page.html")
    assert "And 2 more tasks" in text
    assert text.count('class="number">3</td>\n      </tr>') == 5
    assert text.count("first, middle and last frame") == 2 * 2
    assert "3 more dimensions are not drawn." in text
    assert text.count("<figcaption>") == 3 + 3
    assert text.count('<th scope="row">action ') + text.count('<th scope="row">proprio ') == 4 + 5


def test_a_store_without_proprioception(tmp_path: Path) -> None:
    text = page_of(
        make_store(tmp_path / "store.zarr", info=make_info(proprio=0)), tmp_path / "page.html"
    )
    assert "<h3>Proprioception</h3>" not in text
    assert 'aria-label="proprio' not in text
