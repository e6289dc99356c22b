"""Positions in rows and columns, against Qwen2.5-VL's own."""

import pytest
import torch

from plugins.vlms.huggingface.grid import grid_positions, token_grid
from tests.plugins.huggingface.families import (
    IMAGE,
    full_model,
    rope_index,
)


@pytest.mark.parametrize("grids", [[(2, 3)], [(4, 2), (3, 3)], [(1, 5), (5, 1), (2, 2), (1, 1)]])
def test_positions_of_rows_and_columns_are_transformers_own(grids, folder_of):
    images = [IMAGE] * sum(rows * columns for rows, columns in grids)
    ids = torch.tensor([[1, 9, *images, 10, 11, 12], [1, *images, 10, 0, 0, 0]])
    mask = ids != 0
    places = torch.cat([token_grid(rows, columns) for rows, columns in grids])
    grid = torch.full((*ids.shape, 2), -1)
    for i in range(2):
        grid[i, ids[i] == IMAGE] = places
    expected = rope_index(full_model(folder_of("qwen2_5_vl"), random=True), ids, grids, mask)
    assert torch.equal(grid_positions(grid)[:, mask], expected[:, mask])
