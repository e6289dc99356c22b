import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from core.episodes.episode import Gripper
from core.episodes.normalization import Normalizer, ProprioNormalizer
from core.episodes.statistics import Statistics
from core.errors import DataError
from tests.factories import make_info

BINARY = make_info().action
CONTINUOUS = replace(BINARY, grippers=(Gripper(3, "continuous", closed=1.0, open=-1.0),))
RANDOM = np.random.default_rng(0)
ACTIONS = np.concatenate(
    [RANDOM.normal((0.1, 5, -2), (0.4, 2, 1e-3), (300, 3)), RANDOM.choice([-1.0, 1.0], (300, 1))],
    axis=1,
).astype(np.float32)
STATISTICS = Statistics.of(ACTIONS)
EXACT = ACTIONS.astype(np.float64)
LOW, HIGH = np.quantile(EXACT, 0.01, axis=0), np.quantile(EXACT, 0.99, axis=0)
REFERENCE = {
    "none": EXACT,
    "clip_range": np.clip(EXACT, -0.65, 0.65) / 0.65,
    "min_max": 2 * (EXACT - EXACT.min(0)) / (EXACT.max(0) - EXACT.min(0)) - 1,
    "quantile": 2 * (EXACT - LOW) / (HIGH - LOW + 1e-6) - 1,
    "quantile_clipped": np.clip(2 * (EXACT - LOW) / (HIGH - LOW + 1e-6) - 1, -1, 1),
    "mean_std": (EXACT - EXACT.mean(0)) / EXACT.std(0),
}
METHODS = list(REFERENCE)


@pytest.mark.parametrize("method", METHODS)
def test_pose_and_grippers_equal_numpy(method: str) -> None:
    binary = Normalizer.fit(STATISTICS, BINARY, method, (-0.65, 0.65)).normalize(ACTIONS)
    assert binary.dtype == np.float32
    np.testing.assert_allclose(binary[:, :3], REFERENCE[method][:, :3], rtol=1e-4, atol=3e-4)
    np.testing.assert_array_equal(binary[:, 3], ACTIONS[:, 3] > 0)  # open is +1 here
    continuous = Normalizer.fit(STATISTICS, CONTINUOUS, method, (-0.65, 0.65)).normalize(ACTIONS)
    np.testing.assert_allclose(
        continuous[:, 3], ACTIONS[:, 3] * (1 if method == "none" else -1)
    )  # closed is +1


@pytest.mark.parametrize("convention", [BINARY, CONTINUOUS], ids=["binary", "continuous"])
@pytest.mark.parametrize("method", METHODS)
def test_round_trips_for_numpy_and_torch(method: str, convention: object) -> None:
    normalizer = Normalizer.fit(STATISTICS, convention, method, (-0.65, 0.65))  # type: ignore[arg-type]
    limits = {"clip_range": (-0.65, 0.65), "quantile_clipped": (LOW, HIGH)}
    expected = np.clip(ACTIONS, *limits[method]) if method in limits else ACTIONS.copy()
    expected[:, 3] = ACTIONS[:, 3]
    back = normalizer.unnormalize(normalizer.normalize(ACTIONS))
    np.testing.assert_allclose(back, expected, rtol=1e-5, atol=1e-5)
    tensor = torch.from_numpy(ACTIONS).reshape(5, 60, 4)
    normalized = normalizer.normalize(tensor)
    np.testing.assert_allclose(
        normalized.reshape(-1, 4), normalizer.normalize(ACTIONS), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        normalizer.unnormalize(normalized).reshape(-1, 4), back, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(normalizer.unnormalize(normalizer.normalize(ACTIONS[0])), back[0])


def test_binary_predictions_are_cut_at_one_half() -> None:
    gripper = replace(BINARY, grippers=(Gripper(3, "binary", closed=0.25, open=0.75),))
    normalizer = Normalizer.fit(STATISTICS, gripper, "min_max")
    predicted = np.zeros((3, 4), np.float32)
    predicted[:, 3] = 0.49, 0.51, 7.0
    assert normalizer.unnormalize(predicted)[:, 3].tolist() == [0.25, 0.75, 0.75]


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_dimension_becomes_zero_and_comes_back(method: str) -> None:
    actions = ACTIONS.copy()
    actions[:, 1] = 0.3
    normalizer = Normalizer.fit(Statistics.of(actions), BINARY, method)
    normalized = normalizer.normalize(actions)
    assert np.isfinite(normalized).all()
    expected = 0.3 if method in ("none", "clip_range") else 0.0
    np.testing.assert_allclose(normalized[:, 1], expected, atol=1e-7)
    np.testing.assert_allclose(normalizer.unnormalize(normalized)[:, 1], 0.3, rtol=1e-6)


def test_normalizers_travel_as_json() -> None:
    normalizer = Normalizer.fit(STATISTICS, BINARY, "quantile")
    assert Normalizer.from_json(json.loads(json.dumps(normalizer.to_json()))) == normalizer
    proprio = ProprioNormalizer.fit(STATISTICS)
    assert ProprioNormalizer.from_json(json.loads(json.dumps(proprio.to_json()))) == proprio
    with pytest.raises(DataError, match="no normaliser"):
        Normalizer.from_json({"method": "quantile"})


def test_statistics_of_something_else_are_refused() -> None:
    with pytest.raises(DataError, match="3 action dimensions, the convention has 4"):
        Normalizer.fit(Statistics.of(ACTIONS[:, :3]), BINARY, "min_max")


def test_proprioception_has_mean_0_and_deviation_1() -> None:
    proprio = ACTIONS.copy()
    proprio[:, 0] = 7.7
    normalized = ProprioNormalizer.fit(Statistics.of(proprio)).normalize(proprio)
    np.testing.assert_allclose(normalized.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std(0), [0, 1, 1, 1], atol=1e-3)
    assert ProprioNormalizer.fit(Statistics.of(proprio[:, :0])).normalize(proprio[:, :0]).shape == (
        300,
        0,
    )
