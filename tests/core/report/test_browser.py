"""The pages in a real browser: they render and play without errors and without requests."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.report.run_comparison import write_comparison
from core.report.run_report import write_report
from core.report.store_films import choose_episodes
from core.report.store_inspection import inspect
from core.report.store_report import write_store_page
from core.store.store import EpisodeStore
from core.store.writer import StoreWriter
from tests.core.report.factories import TASKS, make_evaluation, make_run, write_evaluation
from tests.factories import make_episode, make_info

pytestmark = pytest.mark.browser

COLOURS = """
const canvas = arguments[0];
const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
const pixels = new Uint32Array(image.data.buffer);
return new Set(pixels).size;"""
SCRUB = """
const [slider, value] = arguments;
slider.value = value;
slider.dispatchEvent(new Event("input"));"""


def show(browser: Any, page: Path, width: int = 1280, *, dark: bool = False) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # drop the messages of other pages
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def requests(browser: Any) -> list[str]:
    """The addresses that the page has asked for.

    On a busy machine, the browser's own first page is still loading; no file can ask for those
    addresses.
    """
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    addresses = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    return [address for address in addresses if not address.startswith("chrome:")]


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def wait(browser: Any, condition: Any) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, timeout=60, poll_frequency=0.05).until(condition)


def watch_films(browser: Any) -> None:
    """Scroll to each film: it is drawn when it becomes visible."""
    for player in find(browser, ".player"):
        canvas, slider = (player.find_element("css selector", s) for s in ("canvas", "input"))
        browser.execute_script("arguments[0].scrollIntoView()", canvas)
        wait(browser, lambda _, slider=slider: slider.get_attribute("aria-valuetext"))
        assert browser.execute_script(COLOURS, canvas) > 10


@pytest.fixture(scope="module")
def report(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(pristine_run, tmp_path_factory.mktemp("shown") / "kosmos_lstm")
    return write_report(Path(run))


@pytest.fixture(scope="module")
def store_page(pristine_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(EpisodeStore(pristine_store), tmp_path_factory.mktemp("shown") / "store.html")


def page_of(store: EpisodeStore, path: Path) -> Path:
    write_store_page(store, inspect(store), choose_episodes(store, None), path)
    return path


def test_the_report_renders_and_is_whole_in_itself(browser, report):
    show(browser, report)
    assert browser.title == "kosmos_lstm - Joinery"
    headings = [heading.text.splitlines()[0] for heading in find(browser, "h2")]
    assert [h.removesuffix(" Pause all").removesuffix(" Play all") for h in headings] == [
        "Success",
        "Rollouts",
        "Curves",
        "Action chunks",
        "Joint training",
        "Recipe",
        "Conditions",
    ]
    assert find(browser, "svg.chart")[0].rect["height"] > 100
    watch_films(browser)
    assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert complaints(browser) == []


def test_a_film_plays_pauses_and_scrubs(browser, report):
    show(browser, report)
    player = find(browser, ".player")[0]
    button, slider, step = (
        player.find_element("css selector", s) for s in ("button", "input", ".step")
    )
    browser.execute_script("arguments[0].scrollIntoView()", player)
    if button.get_attribute("aria-label") == "Play":  # where the system asks for less motion
        button.click()
    # the counter is empty until the first image of the film is drawn
    wait(browser, lambda _: int((step.text or "observation 0").split()[1]) > 2)
    button.click()
    assert button.get_attribute("aria-label") == "Play"
    browser.execute_script(SCRUB, slider, 7)
    assert step.text == "observation 7 of 23"
    assert complaints(browser) == []


def test_one_button_stops_and_starts_all_films(browser, report):
    show(browser, report)
    button = find(browser, "button.all")[0]
    first = button.text
    button.click()
    assert {first, button.text} == {"Pause all", "Play all"}
    playing = len(find(browser, ".player.playing"))
    assert playing == (len(find(browser, ".player")) if first == "Play all" else 0)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_their_width(browser, report, store_page, pristine_run, tmp_path, width, dark):
    other = make_run(
        tmp_path / "frozen_backbone_with_a_long_name", tasks=TASKS[4:7], skill=0.4, length=4
    )
    comparison = write_comparison([pristine_run, other], tmp_path / "compare.html")
    for page in (report, store_page, comparison):
        show(browser, page, width, dark=dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert complaints(browser) == []
        assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert [heading.text for heading in find(browser, "h2")] == [
        "Overview",
        "Success",
        "Conditions",
        "Curves",
        "Recipes",
        "Sizes",
    ]


def test_a_wide_table_says_that_it_scrolls(browser, report):
    hint = "return getComputedStyle(arguments[0], '::before').content"
    show(browser, report, 390)
    wide, fitting = (find(browser, f"#{section} .scroll")[0] for section in ("joint", "success"))
    assert "scrolls sideways" in browser.execute_script(hint, wide)
    assert wide.get_property("tabIndex") == 0
    assert browser.execute_script(hint, fitting) == "none"
    assert fitting.get_property("tabIndex") == -1
    show(browser, report, 1280)
    assert browser.execute_script(hint, find(browser, "#joint .scroll")[0]) == "none"


@pytest.mark.parametrize("width", [390, 1280])
def test_texts_of_charts_have_their_own_size(browser, report, store_page, width):
    measure = """
        const shown = "details[open] svg.chart, section > .charts svg.chart";
        const scale = (chart) => chart.getBoundingClientRect().width / chart.viewBox.baseVal.width;
        return [...document.querySelectorAll(shown)].map(scale);"""
    for page in (report, store_page):
        show(browser, page, width)
        scales = browser.execute_script(measure)
        assert len(scales) > 6
        assert set(scales) == {1}


def test_a_long_name_takes_few_lines_on_a_telephone(browser, tmp_path):
    task = "place_the_tall_green_bottle_into_the_upper_left_drawer_of_the_kitchen"
    run = make_run(tmp_path / "run", tasks=[task], length=4, steps=20)
    evaluation = make_evaluation("run", [task])
    scored = [replace(episode, score_best=0.5) for episode in evaluation.episodes]
    broken = replace(scored[0], success=False, failure="raised (OSError: " + "long" * 30 + ")")
    write_evaluation(run, replace(evaluation, episodes=[broken, *scored[1:]]))
    show(browser, write_report(run), 390)
    names = find(browser, "#success th[scope=row]")
    assert [name.size["height"] < 3 * 25 for name in names if name.text == task] == [True] * 2
    assert browser.execute_script("return document.documentElement.scrollWidth") == 390


def test_a_page_cannot_ask_the_network_even_if_it_wanted_to(browser, report):
    show(browser, report)
    browser.execute_script("new Image().src = 'http://127.0.0.1:9/x.png'")
    wait(browser, lambda b: any("Content Security Policy" in line for line in complaints(b)))


def test_hostile_words_stay_words(browser, tmp_path):
    evil = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>'\""
    run = make_run(tmp_path / "run", tasks=["plain"], skill=0.4, length=4, steps=20)
    results = run / "evaluation" / "results.json"
    results.write_text(
        results.read_text(encoding="utf-8").replace("plain", json.dumps(evil)[1:-1]),
        encoding="utf-8",
    )
    show(browser, write_report(run))
    assert browser.title == "run - Joinery"
    assert find(browser, "tbody th[scope=row]")[0].text == evil
    assert complaints(browser) == []


def test_a_store_renders_and_is_whole_in_itself(browser, store_page):
    show(browser, store_page)
    assert browser.title == "store.zarr - Joinery"
    headings = [heading.text.splitlines()[0].partition(" ")[0] for heading in find(browser, "h2")]
    assert headings == ["Suspicious", "Tasks", "Episodes", "Numbers", "Conventions"]
    assert find(browser, "svg.chart")[0].rect["height"] > 100
    thumbnails = find(browser, ".thumbnails img")
    assert len(thumbnails) == 2 * 2
    assert all(thumbnail.get_property("naturalWidth") == 3 * 32 for thumbnail in thumbnails)
    watch_films(browser)
    assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert complaints(browser) == []


def test_an_episode_plays_pauses_and_scrubs_with_its_numbers(browser, store_page, pristine_store):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, store_page)
    player = find(browser, ".player")[1]
    button, slider, step = (
        player.find_element("css selector", s) for s in ("button", "input", ".step")
    )
    tracks, values = (player.find_elements("css selector", s) for s in (".track", ".value"))
    browser.execute_script("arguments[0].scrollIntoView()", player)
    if button.get_attribute("aria-label") == "Play":  # where the system asks for less motion
        button.click()
    # the counter is empty until the first image of the film is drawn
    wait(browser, lambda _: int((step.text or "observation 0").split()[1]) > 2)
    button.send_keys(Keys.SPACE)
    assert button.get_attribute("aria-label") == "Play"
    browser.execute_script(SCRUB, slider, 7)
    assert step.text == "frame 7 of 11, 0.70 s"
    slider.send_keys(Keys.ARROW_RIGHT)
    assert step.text == "frame 8 of 11, 0.80 s"
    assert slider.get_attribute("aria-valuetext") == "frame 8 of 11"

    store = EpisodeStore(pristine_store)
    numbers = [*store.actions(1, 8, 9)[0], *store.proprio(1, 8, 9)[0]]
    assert [value.text for value in values] == [f"{number:.3g}" for number in numbers]
    cursor = "return getComputedStyle(arguments[0], '::after').left"
    place = float(browser.execute_script(cursor, tracks[0]).removesuffix("px"))
    assert place == pytest.approx(tracks[0].size["width"] * 8 / 11, abs=1)
    left = 3 - tracks[2].size["width"] // 2
    ActionChains(browser).move_to_element_with_offset(tracks[2], left, 0).click().perform()
    assert step.text == "frame 0 of 11, 0.00 s"
    assert complaints(browser) == []


def test_without_scripts_a_store_is_still_there(browser, store_page):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, store_page)
        assert "reach the red cube" in find(browser, "table.tasks")[0].text
        sheets, canvases = find(browser, ".player img"), find(browser, ".player canvas")
        assert len(sheets) == len(canvases) == 6
        assert all(sheet.rect["height"] > 0 for sheet in sheets)
        for element in (*canvases, *find(browser, ".controls, h2 button")):
            assert element.value_of_css_property("display") == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_hostile_words_of_a_store_stay_words(browser, tmp_path):
    evil = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>'\""
    info = make_info()
    info = replace(info, action=replace(info.action, names=(evil, *"yzg")), origin=evil)
    with StoreWriter(tmp_path / "store.zarr", info) as writer:
        writer.append(replace(make_episode(0, info), id=evil, task=evil, instruction=evil))
    show(browser, page_of(EpisodeStore(tmp_path / "store.zarr"), tmp_path / "page.html"))
    assert browser.title == "store.zarr - Joinery"
    assert find(browser, "tbody th[scope=row]")[0].text == evil
    assert find(browser, ".where")[0].text == evil
    assert complaints(browser) == []
