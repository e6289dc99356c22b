"""What lets a small Vision Transformer bind words to places: FiLM, and a summary by keypoints."""

import torch
from einops import rearrange
from torch import Tensor, nn

from core import TokenGroup, expected_places, mean_token


class FiLM(nn.Module):
    """Scales and shifts every channel of the input of several blocks by the instruction.

    FiLM (Perez et al. 2018) begins by changing nothing, as in RT-1 (Brohan et al. 2022), so that
    pretrained features keep their meaning.

    layers: one for each block.
    """

    def __init__(self, text_width: int, width: int, blocks: int) -> None:
        super().__init__()
        # embeddings are small when training begins; the norm scales them to unit variance
        self.norm = nn.LayerNorm(text_width)
        self.layers = nn.ModuleList(nn.Linear(text_width, 2 * width) for _ in range(blocks))
        for parameter in self.layers.parameters():
            nn.init.zeros_(parameter)

    def forward(self, text: TokenGroup) -> list[tuple[Tensor, Tensor]]:
        """(B M text_width) -> each block's scale and shift (B 1 width): x * (1 + scale) + shift."""
        instruction = self.norm(mean_token(text)).unsqueeze(1)
        return [tuple(layer(instruction).chunk(2, dim=-1)) for layer in self.layers]


class Summary(nn.Module):
    """Summarises a square map of patches by a small grid of tokens and one token for keypoints.

    A keypoint is the mean position in a map, weighted by a softmax over the map (Levine et al.
    2016).

    side: number of rows, and of columns, of the map; a multiple of `grid`.
    """

    def __init__(self, width: int, side: int, grid: int, keypoints: int) -> None:
        super().__init__()
        self.side = side
        self.merge = nn.Conv2d(width, width, kernel_size=side // grid, stride=side // grid)
        self.keypoints = nn.Linear(width, keypoints)
        self.places = nn.Linear(4 * keypoints, width)

    def forward(self, patches: Tensor) -> Tensor:
        """(n side*side width) -> (n grid*grid+1 width)."""
        square = rearrange(patches, "n (y x) d -> n d y x", y=self.side)
        tokens = rearrange(self.merge(square), "n d y x -> n (y x) d")
        maps = rearrange(self.keypoints(patches), "n (y x) k -> n k y x", y=self.side)
        return torch.cat([tokens, self.places(expected_places(maps)).unsqueeze(1)], dim=1)
