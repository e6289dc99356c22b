"""What the checks of the policy's boundary cost in a training step.

    python -m tests.benchmarks.boundary recipes/quickstart.toml

Two figures. First, whole training steps with and without the checks, in turn in one process on one
policy with random images, in the opposite order in each second pair; a ratio is the time of a step
with checks over that of the step without in the same pair. Second, the checks alone: the forward
pass with and without them, where every part returns at once what it returned before. All times are
processor time, so other programs disturb them little.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from core import ActionSpec, Batch, Generator
from core.contracts.batch import TokenGroup, TokenSequence
from core.policy.assembly import build_policy
from core.policy.boundary import Boundary
from core.policy.policy import Policy
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.optimizer import build_optimizer
from tests.benchmarks.optimizers import CAMERAS, batch_of


class Unchecked(Boundary):
    """Calls the parts in training, and checks nothing."""

    def encode_text(self, encoder: Any, ids: Tensor, mask: Tensor | None) -> TokenGroup:
        return encoder(ids, mask)  # type: ignore[no-any-return]

    def encode_images(
        self, encoder: Any, images: Mapping[str, Tensor], text: TokenGroup
    ) -> TokenGroup:
        return encoder(images, text)  # type: ignore[no-any-return]

    def lay_out(self, tokens: Any, width: int, *arguments: Any) -> TokenSequence:
        vision, text, proprio, _, batch, generator = arguments  # no past actions
        return tokens.layout(vision, text, proprio, batch, generator)  # type: ignore[no-any-return]

    def read(self, backbone: Any, sequence: TokenSequence) -> Tensor:
        return backbone.read(sequence)  # type: ignore[no-any-return]

    def remember(self, backbone: Any, *arguments: Any) -> Any:
        return backbone.remember(*arguments)

    def loss(self, part: str, head: Any, *arguments: Any) -> dict[str, Tensor]:
        return head.loss(*arguments)  # type: ignore[no-any-return]


def seconds(run: Callable[[], object]) -> float:
    """Return the processor time of a call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def in_turn(
    policy: Policy, run: Callable[[], object], pairs: int, warm_up: int = 3
) -> list[tuple[float, float]]:
    """Return the times of a call with and without checks, in pairs."""
    boundaries = {"with": policy.boundary, "without": Unchecked()}
    result = []
    for number in range(-warm_up, pairs):
        times = {}
        for name in list(boundaries)[:: -1 if number % 2 else 1]:
            policy.boundary = boundaries[name]
            times[name] = seconds(run)
        if number >= 0:
            result.append((times["with"], times["without"]))
    policy.boundary = boundaries["with"]
    return result


@contextmanager
def instant_parts(policy: Policy, forward: Callable[[], object]) -> Iterator[None]:
    """Let every part return at once what it returns in `forward`."""
    methods = {
        "text_encoder": "forward",
        "vision_encoder": "forward",
        "action_tokens": "layout",
        "backbone": "read",
        "policy_head": "loss",
    }
    for part, method in methods.items():
        module = getattr(policy, part)
        original = getattr(module, method)
        returned: list[object] = []
        setattr(module, method, lambda *given, f=original, r=returned: r.append(f(*given)) or r[-1])
        forward()
        setattr(module, method, lambda *_, r=returned: r[-1])
    yield
    for part, method in methods.items():
        delattr(getattr(policy, part), method)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--pairs", type=int, default=100, help="of training steps; default: 100")
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe, ["data.window=1"], load_plugins())
    torch.manual_seed(0)
    action = ActionSpec(window=1, horizon=recipe.action.horizon, dim=7, binary=(6,))
    policy = build_policy(recipe, CAMERAS, action, proprio_dim=7).train()
    optimizer = build_optimizer(policy, recipe)
    batch: Batch = batch_of(policy, recipe, recipe.train.batch_size)
    generator = Generator.shared((0,), torch.device("cpu"))

    def forward() -> Tensor:
        total: Tensor = policy(batch, generator).losses["total"]
        return total

    def step() -> None:
        torch.autograd.backward(forward())
        torch.nn.utils.clip_grad_norm_(policy.parameters(), recipe.train.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()

    steps = in_turn(policy, step, arguments.pairs)
    with instant_parts(policy, forward):
        alone = in_turn(policy, forward, 20 * arguments.pairs)
    ratios = [checked / unchecked for checked, unchecked in steps]
    low, _, high = quantiles(ratios, n=4)
    whole = median(unchecked for _, unchecked in steps)
    checks = median(checked for checked, _ in alone) - median(unchecked for _, unchecked in alone)
    print(f"a training step without checks: {1e3 * whole:.1f} ms")
    print(f"ratio with checks: median {median(ratios):.4f}, middle half {low:.4f} to {high:.4f}")
    print(f"the checks alone: {1e6 * checks:.0f} us, {checks / whole:.3%} of the step")


if __name__ == "__main__":
    main()
