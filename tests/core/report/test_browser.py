"""The pages in a real browser: they render, play and complain about nothing, and ask the network for nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.report.compare import write_comparison
from core.report.report import write_report
from tests.core.report.factories import TASKS, make_run

pytestmark = pytest.mark.browser

COLOURS = """
const canvas = arguments[0];
const pixels = new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
return new Set(pixels).size;"""
SCRUB = """
const [slider, value] = arguments;
slider.value = value;
slider.dispatchEvent(new Event("input"));"""


def show(browser: Any, page: Path, width: int = 1280, *, dark: bool = False) -> None:
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what other pages said
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())


def requests(browser: Any) -> list[str]:
    """The addresses that the page has asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


def find(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def wait(browser: Any, condition: Any) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, timeout=60, poll_frequency=0.05).until(condition)


@pytest.fixture(scope="module")
def report(pristine_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = shutil.copytree(pristine_run, tmp_path_factory.mktemp("shown") / "kosmos_lstm")
    return write_report(Path(run))


def test_the_report_renders_and_is_whole_in_itself(browser, report):
    show(browser, report)
    assert browser.title == "kosmos_lstm - Joinery"
    headings = [heading.text.splitlines()[0] for heading in find(browser, "h2")]
    assert [h.removesuffix(" Pause all").removesuffix(" Play all") for h in headings] == [
        *("Success", "Rollouts", "Curves", "Action chunks", "Joint training", "Recipe", "Conditions")
    ]
    assert find(browser, "svg.chart")[0].rect["height"] > 100
    wait(browser, lambda b: all(b.execute_script(COLOURS, canvas) > 10 for canvas in find(b, "canvas")))
    assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert complaints(browser) == []


def test_a_film_plays_pauses_and_scrubs(browser, report):
    show(browser, report)
    player = find(browser, ".player")[0]
    button, slider, step = (player.find_element("css selector", s) for s in ("button", "input", ".step"))
    browser.execute_script("arguments[0].scrollIntoView()", player)
    if button.get_attribute("aria-label") == "Play":  # where the system asks for less motion
        button.click()
    wait(browser, lambda _: int(step.text) > 2)
    button.click()
    assert button.get_attribute("aria-label") == "Play"
    browser.execute_script(SCRUB, slider, 7)
    assert step.text == "7"
    assert complaints(browser) == []


def test_one_button_stops_and_starts_all_films(browser, report):
    show(browser, report)
    button = find(browser, "button.all")[0]
    first = button.text
    button.click()
    assert {first, button.text} == {"Pause all", "Play all"}
    playing = len(find(browser, ".player.playing"))
    assert playing == (len(find(browser, ".player")) if first == "Play all" else 0)


@pytest.mark.parametrize("width", [420, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_their_width(browser, report, pristine_run, tmp_path, width, dark):
    other = make_run(tmp_path / "frozen_backbone_with_a_long_name", tasks=TASKS[4:7], skill=0.4, length=4)
    comparison = write_comparison([pristine_run, other], tmp_path / "compare.html")
    for page in (report, comparison):
        show(browser, page, width, dark=dark)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert complaints(browser) == []
        assert {address.partition(":")[0] for address in requests(browser)} <= {"file", "data"}
    assert [heading.text for heading in find(browser, "h2")] == ["Overview", "Success", "Curves", "Recipes", "Sizes"]


def test_a_page_cannot_ask_the_network_even_if_it_wanted_to(browser, report):
    show(browser, report)
    browser.execute_script("new Image().src = 'http://127.0.0.1:9/x.png'")
    wait(browser, lambda b: any("Content Security Policy" in line for line in complaints(b)))


def test_hostile_words_stay_words(browser, tmp_path):
    evil = "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>'\""
    run = make_run(tmp_path / "run", tasks=["plain"], skill=0.4, length=4, steps=20)
    results = run / "evaluation" / "results.json"
    results.write_text(results.read_text(encoding="utf-8").replace("plain", json.dumps(evil)[1:-1]), encoding="utf-8")
    show(browser, write_report(run))
    assert browser.title == "run - Joinery"
    assert find(browser, "tbody th[scope=row]")[0].text == evil
    assert complaints(browser) == []
