"""What is shown to a policy: every difference from the training data is a line with a way out."""

import numpy as np
import pytest

from core.environments.environment import Observation
from core.episodes.episode import Camera, Feature, StoreInfo
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.statistics import Statistics
from core.errors import DataError
from core.rollout.observations import batch_of, raise_unless_fit
from tests.factories import make_info

HEIGHT, WIDTH = 24, 32
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
NUMBERS = np.zeros(3, np.float32)


@pytest.fixture
def info() -> StoreInfo:
    info = make_info(cameras=["front"])
    info.cameras["front"] = Camera(HEIGHT, WIDTH)  # type: ignore[index]
    return info


def refusal(observation: Observation, info: StoreInfo) -> str:
    """Return the message with which an observation is refused."""
    with pytest.raises(DataError) as caught:
        raise_unless_fit([observation], ["reach"], info)
    return str(caught.value)


def test_what_was_trained_on_is_taken(info: StoreInfo) -> None:
    raise_unless_fit([Observation({"front": IMAGE, "extra": IMAGE}, NUMBERS)], ["reach"], info)
    raise_unless_fit([Observation({"front": IMAGE}, NUMBERS.astype(np.float64))], ["reach"], info)


def test_a_past_action_is_normalised_and_may_be_unknown(info: StoreInfo) -> None:
    dim = info.action.dim
    numbers = np.random.default_rng(0).standard_normal((50, dim)).astype(np.float32)
    action = Normalizer.fit(Statistics.of(numbers), info.action, "mean_std")
    proprio = ProprioNormalizer.fit(Statistics.of(numbers[:, :3]))
    shown = [
        Observation({"front": IMAGE}, NUMBERS),
        Observation({"front": IMAGE}, NUMBERS, past_action=numbers[7]),
    ]
    past = batch_of(shown, ["reach"] * 2, info, action, proprio, 0).past
    assert past is not None
    assert past.known.tolist() == [[False], [True]]
    assert not past.actions[0].any()
    np.testing.assert_allclose(past.actions[1, 0], action.normalize(numbers[7]), rtol=1e-6)


@pytest.mark.parametrize(
    ("past", "message"),
    [
        (np.zeros(2), "past_action is float64 (2,); the policy's actions are 4 numbers"),
        (np.array([0, 0, np.nan, 0]), "past_action is not finite"),
    ],
)
def test_a_past_action_that_is_none_is_refused(
    past: np.ndarray, message: str, info: StoreInfo
) -> None:
    assert message in refusal(Observation({"front": IMAGE}, NUMBERS, past_action=past), info)


@pytest.mark.parametrize(
    ("image", "shown"),
    [
        ((IMAGE / 255).astype(np.float32), r"float32 (24, 32, 3)"),
        (IMAGE / 127.5 - 1, "float64 (24, 32, 3)"),
        (IMAGE.astype(np.float32), "float32 (24, 32, 3)"),
        (IMAGE.astype(np.int64), "int64 (24, 32, 3)"),
        (IMAGE.transpose(2, 0, 1), "uint8 (3, 24, 32)"),
        (IMAGE[None], "uint8 (1, 24, 32, 3)"),
        (np.dstack([IMAGE, IMAGE[..., :1]]), "uint8 (24, 32, 4)"),
        (IMAGE.tolist(), "an object of type list"),
    ],
    ids=["0 to 1", "-1 to 1", "float", "int64", "channels first", "batch", "alpha", "list"],
)
def test_the_way_out_of_a_message_works(image: np.ndarray, shown: str, info: StoreInfo) -> None:
    message = refusal(Observation({"front": image}, NUMBERS), info)
    assert message.startswith(
        f"observation: camera 'front' shows {shown}; the policy was trained on uint8 (24, 32, 3)"
    )
    assert "\n" not in message
    way_out = message.rpartition(": ")[2]
    corrected = eval(way_out, {"np": np, "image": image})
    if isinstance(image, list):  # its numbers are now an array, and of another dtype
        message = refusal(Observation({"front": corrected}, NUMBERS), info)
        corrected = eval(message.rpartition(": ")[2], {"np": np, "image": corrected})
    np.testing.assert_array_equal(corrected, IMAGE)
    raise_unless_fit([Observation({"front": corrected}, NUMBERS)], ["reach"], info)


@pytest.mark.parametrize("grey", [IMAGE[..., 0], IMAGE[..., :1]])
def test_a_grey_picture_becomes_three_colours(grey: np.ndarray, info: StoreInfo) -> None:
    message = refusal(Observation({"front": grey}, NUMBERS), info)
    corrected = eval(message.rpartition(": ")[2], {"np": np, "image": grey})
    assert (corrected == IMAGE[..., :1]).all()
    raise_unless_fit([Observation({"front": corrected}, NUMBERS)], ["reach"], info)


def test_another_size_names_the_right_one(info: StoreInfo) -> None:
    large = np.zeros((480, 640, 3), np.uint8)
    message = refusal(Observation({"front": large}, NUMBERS), info)
    assert message.endswith("resize it to 24 rows and 32 columns")


@pytest.mark.parametrize(
    ("proprio", "message"),
    [
        (np.zeros(9, np.float32), r"proprio has shape (9,); the policy was trained on (3,): p0, "),
        (np.zeros((1, 3), np.float32), "proprio has shape (1, 3)"),
        (np.zeros(0, np.float32), "proprio has shape (0,)"),
        (None, "no proprio; the policy was trained on (3,): p0, p1, p2; give these numbers"),
        (np.array(["a", "b", "c"]), "proprio is <U1 (3,)"),
        (np.float32([0, np.nan, np.inf]), "proprio is not finite: p1 = nan, p2 = inf; "),
    ],
)
def test_proprioception_that_does_not_fit(
    proprio: np.ndarray, message: str, info: StoreInfo
) -> None:
    assert f"observation: {message}" in refusal(Observation({"front": IMAGE}, proprio), info)


def test_a_policy_without_proprioception_ignores_it() -> None:
    info = make_info(cameras=["front"], proprio=0)
    image = np.zeros((32, 32, 3), np.uint8)
    raise_unless_fit([Observation({"front": image}, np.full(2, np.nan))], ["reach"], info)


def test_all_differences_of_all_rows_are_lines() -> None:
    info = make_info(
        cameras=["front", "wrist"], features={"force": Feature((6,), "float32", "force")}
    )
    image, force = np.zeros((32, 32, 3), np.uint8), np.zeros(6, np.float32)
    fits = Observation({"front": image, "wrist": image}, NUMBERS, {"force": force})
    misfit = Observation({"front": image, "wrst": image}, NUMBERS[:1], {"force": force[:3]})
    with pytest.raises(DataError) as caught:
        raise_unless_fit([fits, misfit], ["reach", None], info)
    assert [line.partition(";")[0] for line in str(caught.value).splitlines()] == [
        "observation 1: no camera 'wrist'",
        "observation 1: proprio has shape (1,)",
        "observation 1: feature 'force' shows float32 (3,)",
        "observation 1: its instruction is nothing",
    ]
    with pytest.raises(DataError, match="2 observations and 1 instructions"):
        raise_unless_fit([fits, fits], ["reach"], info)
