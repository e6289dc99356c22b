"""How much faster tokens are written one after another on kept keys and values.

    python -m tests.benchmarks.decoding --tokens 50 --pairs 10

One policy writes the chunk of one observation with "bins", in turn on kept keys and values and with
the observation and all earlier tokens run again for every token. Only the head and the backbone's
passes for it are timed. The figure is the ratio of the two times in the same pair, so that other
work on the machine slows both.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from torch import Tensor

from core import ActionSpec, Batch, Context, Generator
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from tests.uncached import UncachedContext

RECIPE = """
[data]
path = "unused.zarr"
[vision_encoder]
name = "timm_vit"
[text_encoder]
name = "sentencepiece"
[backbone]
name = "transformer"
[action_tokens]
name = "learned"
[policy_head]
name = "bins"
"""


def build(tokens: int) -> Policy:
    """Build a policy whose chunk has so many numbers, with one camera and random weights."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(RECIPE)
        recipe = load_recipe(path, [], load_plugins())
    torch.manual_seed(0)
    action = ActionSpec(window=1, horizon=tokens, dim=1)
    return build_policy(recipe, {"static": (3, 224, 224)}, action, proprio_dim=0).eval()


def observation(policy: Policy) -> Batch:
    """Return a random image and an instruction."""
    instruction = "open the top drawer and put the red block into it"
    image = torch.randint(256, (1, 1, 3, 224, 224), dtype=torch.uint8)
    return Batch(
        images={"static": image},
        instructions=[instruction],
        text_ids=torch.tensor([policy.text_encoder.tokenize(instruction)]),
        text_mask=None,
        proprio=None,
        actions=None,
        action_mask=None,
    )


def noise() -> Generator:
    return Generator.shared((0,), torch.device("cpu"))


def timed(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the seconds of a call, and its result."""
    began = perf_counter()
    result = run()
    return perf_counter() - began, result


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=10)
    arguments = parser.parse_args()
    policy = build(arguments.tokens)
    kept = policy.context(observation(policy), noise())
    contexts: dict[str, Context] = {"kept": kept, "again": UncachedContext.of(kept)}
    pairs = []
    for number in range(-1, arguments.pairs):  # the first pair warms up
        seconds, actions = {}, {}
        for name in list(contexts)[:: -1 if number % 2 else 1]:
            seconds[name], actions[name] = timed(
                lambda name=name: policy.policy_head(contexts[name], noise())
            )
        torch.testing.assert_close(actions["kept"], actions["again"], rtol=1e-5, atol=1e-5)
        if number >= 0:
            pairs.append(seconds)
    ratios = [pair["again"] / pair["kept"] for pair in pairs]
    low, _, high = quantiles(ratios, n=4)
    assert kept.memory is not None
    print(
        f"{arguments.tokens} tokens after {kept.memory.tokens.shape[1]} observed ones: "
        f"{1000 * median(pair['kept'] for pair in pairs):.0f} ms on kept keys and values, "
        f"{1000 * median(pair['again'] for pair in pairs):.0f} ms run again; "
        f"ratio {median(ratios):.1f} (quartiles {low:.1f} to {high:.1f}) in {len(pairs)} pairs"
    )


if __name__ == "__main__":
    main()
