"""Print how many windows per second a recipe's Loader reads.

    python tests/benchmarks/loader_speed.py RECIPE STORE BATCHES

`checkouts.py` runs this file in both checkouts, so it imports the names of either.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

try:
    from core.recipe.recipe import load_recipe
    from core.registry.catalogue import load_plugins
except ModuleNotFoundError:  # an older checkout, in which core was not divided into rooms
    from core.plugins import load_plugins  # noqa: I001 - modules that this checkout lacks
    from core.recipe import load_recipe

# where checkouts have had open_data, the newest first
PLACES = ("core.loading.opening", "core.loading.training_data", "core.training.data")
WARM_UP = 20  # batches: threads start, files are opened, memory is touched


def find_open_data() -> Callable[[Any], Any]:
    for place in PLACES:
        try:
            found: Callable[[Any], Any] = import_module(place).open_data
        except ModuleNotFoundError:
            continue
        return found
    raise SystemExit(f"open_data is in none of {', '.join(PLACES)}")


def main() -> None:
    path, store, batches = sys.argv[1:]
    torch.set_num_threads(1)
    recipe = load_recipe(Path(path), [f"data.path={store}"], load_plugins())
    loader, _ = find_open_data()(recipe).loaders(
        lambda text: list(text.encode()), recipe.train.batch_size, torch.device("cpu")
    )
    stream = loader.batches(seed=0)
    for _ in islice(stream, WARM_UP):
        pass
    start = perf_counter()
    for _ in islice(stream, int(batches)):
        pass
    print(int(batches) * recipe.train.batch_size / (perf_counter() - start))


if __name__ == "__main__":
    main()
