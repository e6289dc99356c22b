import numpy as np
import pytest

from core.loading.windows import Windows
from core.store.store import EpisodeStore


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_windows_start_everywhere_by_stride(store: EpisodeStore, stride: int) -> None:
    windows = Windows(store, [4, 1], window=4, horizon=3, stride=stride)
    expected = [(e, start) for e in (4, 1) for start in range(0, int(store.length[e]), stride)]
    episodes, starts = windows.locate(np.arange(len(windows)))
    assert list(zip(episodes.tolist(), starts.tolist(), strict=True)) == expected


def test_no_episodes_have_no_windows(store: EpisodeStore) -> None:
    assert len(Windows(store, [], window=4, horizon=3)) == 0
