"""What an environment shows, held against what it announces; messages of the actor's side have
tests in tests/core/rollout/test_observations.py.
"""

from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest

from core.environments.environment import Observation
from core.environments.observations import Fit, as_float32, changes, copy_of, plain
from core.episodes.episode import Camera, Feature
from tests.factories import make_info

IMAGE = np.zeros((24, 32, 3), np.uint8)
FORCE, TEXT = Feature((2,), "float32", "force"), Feature((4,), "uint8", "text")
INFO = replace(
    make_info(features={"force": FORCE, "text": TEXT, "depth": Feature((2,), "float32", "depth")}),
    cameras={"front": Camera(24, 32)},
)
FEATURES = {
    "force": np.zeros(2, np.float32),
    "text": np.zeros(4, np.uint8),
    "depth": np.float32([np.nan, np.inf]),  # not measured
}
SOUND = Observation({"front": IMAGE}, np.zeros(3, np.float32), FEATURES)


def difference(observation: object) -> str:
    """Return the one line that an observation's only difference gives."""
    (line,) = Fit(INFO, "`info` announces", exact=True).differences(observation)
    assert "\n" not in line
    return line


def test_what_is_announced_fits() -> None:
    assert not list(Fit(INFO, "`info` announces", exact=True).differences(SOUND))


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (None, "it is nothing; give an Observation"),
        ((IMAGE, {}), "it is an object of type tuple; give an Observation"),
        (replace(SOUND, images=None), "`images` is nothing; give {camera: array}"),
        (replace(SOUND, images={"frnt": IMAGE}), "no camera 'front'; did you mean 'frnt'?"),
        (
            replace(SOUND, images={"front": IMAGE, "top": IMAGE}),
            "camera 'top' is one too many; `info` announces 'front'; leave it out",
        ),
        (
            replace(SOUND, images={"front": np.float32(IMAGE)}),
            "camera 'front' shows float32 (24, 32, 3); `info` announces uint8 (24, 32, 3), rows, "
            "columns and RGB; multiply it by 255, and cast it: (image * 255)",
        ),
        (
            replace(SOUND, proprio=[[1.0], [2.0, 3.0]]),
            "proprio is an object of type list; `info` announces (3,): p0, p1, p2; give numbers",
        ),
        (replace(SOUND, proprio=np.zeros(3, complex)), "proprio is complex128 (3,); `info`"),
        (
            replace(SOUND, proprio=[0.0, 1e39, np.nan]),
            "proprio is not finite: p1 = 1e+39, p2 = nan; mend the sensor",
        ),
        (replace(SOUND, features=[1]), "`features` is an object of type list; give {feature: "),
        (
            replace(SOUND, features={**FEATURES, "force": [0.0, 0.0]}),
            "feature 'force' shows an object of type list; `info` announces float32 (2,), force; ",
        ),
        (
            replace(SOUND, features={**FEATURES, "force": np.float32([0, np.inf])}),
            "feature 'force' is not finite, in 1 of 2 numbers; mend the sensor",
        ),
        (
            replace(SOUND, features={**FEATURES, "text": np.full(4, 255, np.uint8)}),
            "feature 'text' holds no text: frame 0: no UTF-8 text",
        ),
    ],
)
def test_a_difference_is_a_line_with_a_way_out(observation: object, message: str) -> None:
    assert difference(observation).startswith(message)


def test_without_proprioception_nothing_is_given() -> None:
    fit = Fit(replace(INFO, proprio=()), "`info` announces", exact=True)
    for proprio in (None, np.zeros(0, np.float32)):
        assert not list(fit.differences(replace(SOUND, proprio=proprio)))
    (line,) = fit.differences(replace(SOUND, proprio=np.zeros(2)))
    assert line.startswith("proprio has shape (2,); `info` announces (0,): nothing")


def test_a_plain_observation_has_no_more_than_announced() -> None:
    shown = np.array(IMAGE).view(np.ma.MaskedArray)
    observation = replace(SOUND, images={"front": shown, "top": IMAGE}, proprio=[1, 2, 3])
    made = plain(observation, INFO)
    assert list(made.images) == ["front"]
    assert type(made.images["front"]) is np.ndarray
    assert (made.proprio.dtype, made.proprio.tolist()) == (np.float32, [1, 2, 3])
    assert plain(replace(SOUND, proprio=None), replace(INFO, proprio=())).proprio.shape == (0,)


def test_a_copy_stays_as_it_is() -> None:
    shown = Observation({"front": np.array(IMAGE)}, np.zeros(3, np.float32), {"force": np.zeros(2)})
    copy = copy_of(shown)
    for array in (shown.images["front"], shown.proprio, shown.features["force"]):
        array[:] = 7
    assert not copy.images["front"].any()
    assert not copy.proprio.any()
    assert not copy.features["force"].any()


def test_changes_are_the_largest_differences_by_name() -> None:
    brighter = np.array(IMAGE)
    brighter[3, 4] = [255, 1, 0]
    force, depth = np.float32([0, 3]), np.float32([np.nan, 2])
    other = Observation(
        {"front": brighter},
        np.float32([0, 0, -0.5]),
        {"force": force, "text": FEATURES["text"], "depth": depth},
    )
    assert changes(SOUND, other) == {
        "image 'front'": 255.0,
        "proprio": 0.5,
        "feature 'force'": 3.0,
        "feature 'depth'": np.inf,
    }
    assert changes(SOUND, SOUND) == {}


def test_a_number_too_large_is_infinite_without_a_warning(recwarn) -> None:
    assert as_float32(np.array([1e39, 1.0])).tolist() == [np.inf, 1.0]
    assert not recwarn


def test_a_check_of_large_images_looks_at_no_pixel() -> None:
    """A pass over one image of this size takes longer than a hundred checks."""
    large = np.zeros((2000, 3000, 3), np.uint8)
    info = replace(INFO, cameras={"front": Camera(2000, 3000)})
    fit, shown = Fit(info, "`info` announces", exact=True), replace(SOUND, images={"front": large})
    started = perf_counter()
    for _ in range(20):
        assert not list(fit.differences(shown))
    checks = perf_counter() - started
    started = perf_counter()
    for _ in range(20):
        assert not large.any()
    assert checks < perf_counter() - started
