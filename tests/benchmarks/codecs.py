"""Bytes, error and decoding time of each codec for a camera's frames.

    python -m tests.benchmarks.codecs

The frames are those of both cameras in three episodes of each content, at 128 pixels. A codec's
time is the least of five passes, on one core.
"""

from collections.abc import Iterator
from itertools import islice
from time import process_time

import numpy as np

from core.store.codecs import Codec, choose_codec, split_blocks, try_codecs
from tests.benchmarks.content import NOISE, PHOTOGRAPHS, SIMULATION, episodes_of

EPISODES, PASSES = 3, 5


def contents() -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yield names and frames (n Y X C) of every camera and episode."""
    random = np.random.default_rng(0)
    for content in (SIMULATION, PHOTOGRAPHS):
        frames: list[np.ndarray] = []
        for episode in islice(episodes_of(content), EPISODES):
            frames += episode.images.values()
        yield content, frames
        if content == SIMULATION:
            noise = [random.normal(0, NOISE, images.shape) for images in frames]
            noisy = [
                np.clip(images + added, 0, 255).astype(np.uint8)
                for images, added in zip(frames, noise, strict=True)
            ]
            yield f"{content}, noisy", noisy


def decoding(codec: Codec, frames: np.ndarray) -> float:
    """Return the milliseconds of processor time that decoding a frame takes."""
    encoded = [
        (codec.encode(group), np.empty_like(group))
        for group in split_blocks(frames, codec.block_size)
    ]
    seconds = []
    for _ in range(PASSES):
        began = process_time()
        for data, out in encoded:
            codec.decode(data, [0, len(data)], len(out), 0, out)
        seconds.append(process_time() - began)
    return 1e3 * min(seconds) / len(frames)


def main() -> None:
    names = [str(codec) for codec in try_codecs(np.zeros((1, 8, 8, 3), np.uint8))]
    print(f"| content | {' | '.join(names)} | chosen |\n|{'---|' * (len(names) + 2)}")
    for content, episodes in contents():
        costs = [try_codecs(frames) for frames in episodes]
        cells = []
        for codec in costs[0]:
            size, error = (
                float(np.mean([getattr(cost[codec], of) for cost in costs]))
                for of in ("size", "error")
            )
            loss = f", {10 * np.log10(255**2 / error):.1f} dB" if error else ""
            took = np.mean([decoding(codec, frames) for frames in episodes])
            cells.append(f"{size / 1e3:.1f} KB{loss}, {took:.3f} ms")
        chosen = " or ".join(sorted({str(choose_codec(cost)) for cost in costs}))
        print(f"| {content} | {' | '.join(cells)} | {chosen} |")


if __name__ == "__main__":
    main()
