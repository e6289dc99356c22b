"""Kosmos-2's parts: speed against transformers' own model, and the memory of one full-size training
step.

    python -m tests.benchmarks.kosmos2 speed
    python -m tests.benchmarks.kosmos2 memory full
    python -m tests.benchmarks.kosmos2 memory lora

Weights are random, sizes those of recipes/robovlms_kosmos_calvin.toml. Speed: forward and backward
of the same sequences with the very same weights, in turn in one process and each second round in
the opposite order, so that a busy machine slows all; a ratio is transformers' time over ours, per
round and of the least times, which other programs disturb least. Memory: the largest resident size
of the process that builds the policy and takes its first step, which measures the joint-training
table, too, and then saves it as a checkpoint.
"""

import argparse
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from core import ActionSpec, Batch, Generator, import_library
from core.policy.assembly import build_policy
from core.policy.policy import Policy
from core.policy.publishing import published_model
from core.recipe.recipe import Recipe, load_recipe
from core.registry.catalogue import load_plugins
from core.training.joint_table import JointTable
from core.training.optimizer import build_optimizer
from core.weights.checkpoint import save_checkpoint
from plugins.text.sentencepiece import SHIPPED

RECIPE = Path(__file__).parents[2] / "recipes" / "robovlms_kosmos_calvin.toml"
PARTS = ("vision_encoder", "text_encoder", "backbone")
INSTRUCTION = "push the red block to the left"


def recipe_with(*overrides: str) -> Recipe:
    """RoboVLMs' recipe on one device, with random weights and some other piece vocabulary of the
    same table.
    """
    start = [f"{part}.pretrained=false" for part in PARTS]
    one = ["train.devices=1", "train.strategy=auto", "train.batch_size=1", "train.accelerator=cpu"]
    return load_recipe(
        RECIPE, [*start, *one, f"text_encoder.model={SHIPPED}", *overrides], load_plugins()
    )


def policy_of(recipe: Recipe) -> Policy:
    """The whole policy, in float32."""
    action = ActionSpec(
        window=recipe.data.window, horizon=recipe.action.horizon, dim=7, binary=(6,)
    )
    return build_policy(
        recipe, dict.fromkeys(recipe.data.cameras, (3, 224, 224)), action, proprio_dim=0
    )


def batch_of(
    policy: Policy, batch: int, window: int, cameras: tuple[str, ...], horizon: int = 10
) -> Batch:
    """Random images and actions, one instruction."""
    ids = torch.tensor([policy.text_encoder.tokenize(INSTRUCTION)] * batch)
    return Batch(
        images={
            name: torch.randint(256, (batch, window, 3, 224, 224), dtype=torch.uint8)
            for name in cameras
        },
        instructions=[INSTRUCTION] * batch,
        text_ids=ids,
        text_mask=None,
        proprio=None,
        actions=torch.rand(batch, window, horizon, 7, dtype=torch.float32),
        action_mask=torch.ones(batch, window, horizon, 7, dtype=torch.bool),
    )


def generator() -> Generator:
    """Random numbers for the augmentation, the same at every call."""
    return Generator.shared((0,), torch.device("cpu"))


# ------------------------------------------------------------------------------------------- memory


class Float32Products(TorchDispatchMode):
    """Multiplies bfloat16 matrices in float32, one product at a time; all that stays in memory
    stays bfloat16.

    A processor without bfloat16 instructions takes a hundred times longer otherwise.
    """

    products = frozenset(
        {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self.products or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        wide = [x.float() if isinstance(x, Tensor) else x for x in args]
        return func(*wide, **(kwargs or {})).to(torch.bfloat16)


def memory(kind: str) -> None:
    """Print the peak of one training step: all weights, or adapters on the decoder beside a frozen
    rest.
    """
    adapters = ["backbone.train=lora", "vision_encoder.train=false", "text_encoder.train=false"]
    recipe = recipe_with(
        "data.window=2", "train.precision=bf16-true", *(adapters if kind == "lora" else [])
    )
    policy = policy_of(recipe).to(torch.bfloat16).train()  # as train.precision = "bf16-true" does
    trained = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    print(
        f"{kind}: {trained:,} of {sum(p.numel() for p in policy.parameters()):,} parameters train"
    )
    report("building it in float32, then bfloat16")
    optimizer = build_optimizer(policy, recipe)
    started = time.perf_counter()
    with Float32Products(), sdpa_kernel(SDPBackend.MATH):
        policy(batch_of(policy, 1, 2, recipe.data.cameras), generator())["total"].backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
    with JointTable(policy, optimizer).measure(1):
        optimizer.step()
    optimizer.zero_grad()
    report(f"one step of {time.perf_counter() - started:.0f} s")
    with tempfile.TemporaryDirectory() as run:
        save_checkpoint(
            Path(run), policy, optimizer, {"step": 1}, keep_last=1, frozen=policy.frozen_weights
        )
    report("saving it")


def report(what: str) -> None:
    """Print the largest resident size of this process since the last report, GB (10^9 bytes), and
    begin anew.
    """
    status = Path("/proc/self/status").read_text()
    peak = (
        int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
        * 1024
        / 1e9
    )
    print(f"peak {peak:.1f} GB while {what}", flush=True)
    Path("/proc/self/clear_refs").write_text("5")


# -------------------------------------------------------------------------------------------- speed


def speed(depth: int, batch: int, repeats: int) -> None:
    """Print the ratios of times and of operations."""
    sizes = [
        f"backbone.depth={depth}",
        f"vision_encoder.clip_depth={depth}",
        "data.window=1",
        "augmentation.shift=0",
    ]
    plain = ["backbone.gradient_checkpointing=false", "vision_encoder.gradient_checkpointing=false"]
    recipe = recipe_with(*sizes, *plain, "backbone.dropout=0.0", "backbone.attention_dropout=0.0")
    policy = policy_of(recipe).train()
    theirs = transformers_model(policy)
    inputs = batch_of(policy, batch, 1, recipe.data.cameras)
    steps: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: policy.context(inputs, generator()).readout.flatten(0, 2),
        "transformers' decoder": lambda: read_theirs(theirs, policy, inputs, logits=False),
        "with its output layer, as RoboVLMs calls it": lambda: read_theirs(
            theirs, policy, inputs, logits=True
        ),
    }
    raise_unless_equal(steps)
    keep_freed_memory()
    counted = {name: operations(read, policy, theirs) for name, read in steps.items()}
    orders = [list(steps.items())[:: -1 if round % 2 else 1] for round in range(repeats)]
    times = [{name: seconds(read, policy, theirs) for name, read in order} for order in orders]
    print(
        f"{depth} layers of each network at full width, batch {batch}, two cameras, float32, {repeats} rounds"
    )
    for name in list(steps)[1:]:
        ratios = sorted(one[name] / one["ours"] for one in times)
        spread = f"median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        least = min(one[name] for one in times) / min(one["ours"] for one in times)
        operations_ratio = counted[name] / counted["ours"]
        print(
            f"{name}, over ours: time {spread}, of the least {least:.2f}; operations {operations_ratio:.3f}"
        )


def keep_freed_memory() -> None:
    """Have the C library (glibc) give memory that was freed to the next step, not back to the
    system.

    Fetching seven gigabytes of gradients anew for each step took up to half of its time, the same
    in every model, and varied by more than the models differ.
    """
    most_mapped, trim_above = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(most_mapped, 0) and libc.mallopt(trim_above, -1)):
        raise OSError("mallopt refused: this benchmark needs glibc's allocator")


@torch.no_grad()
def raise_unless_equal(steps: dict[str, Callable[[], Tensor]]) -> None:
    """All must compute the same."""
    ours, *others = (read() for read in steps.values())
    for other in others:
        torch.testing.assert_close(other, ours, rtol=1e-4, atol=1e-4)


def transformers_model(policy: Policy) -> torch.nn.Module:
    """transformers' own model over the policy's weights, the same memory, in the attention that it
    chooses itself.
    """
    transformers = import_library("transformers", extra="vlm")
    weights, description = published_model(policy)
    model = transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config(**description))
    found = model.load_state_dict(
        {name: x.detach() for name, x in weights.items()}, strict=False, assign=True
    )
    assert found == (["text_model.lm_head.weight"], []), found  # tied to the embedding
    model.tie_weights()
    return model.train()


def read_theirs(model: torch.nn.Module, policy: Policy, batch: Batch, *, logits: bool) -> Tensor:
    """The same sequence through transformers: <s>, images, words, [LRN] -> the hidden state at
    [LRN].
    """
    words = model.get_input_embeddings()(batch.text_ids)
    pixels = torch.stack(
        [policy.vision_encoder._prepare(x[:, 0]) for x in batch.images.values()], dim=1
    )
    images = (
        model.get_image_features(pixels.flatten(0, 1))
        .pooler_output.unflatten(0, pixels.shape[:2])
        .flatten(1, 2)
    )
    action = policy.action_tokens.action.expand(len(words), -1, -1)
    embeddings = torch.cat([words[:, :1], images, words[:, 1:], action], dim=1)
    inputs = {"inputs_embeds": embeddings, "attention_mask": torch.ones(embeddings.shape[:2])}
    if logits:
        return model.text_model(**inputs, output_hidden_states=True).hidden_states[-1][:, -1]
    return model.text_model.model(**inputs).last_hidden_state[:, -1]


def seconds(read: Callable[[], Tensor], *models: torch.nn.Module) -> float:
    """Time of forward and backward; the gradients go at once, or two models' would not fit."""
    started = time.perf_counter()
    read().square().sum().backward()
    took = time.perf_counter() - started
    for model in models:
        model.zero_grad(set_to_none=True)
    return took


def operations(read: Callable[[], Tensor], *models: torch.nn.Module) -> int:
    """Floating-point operations of the products in forward and backward."""
    with (
        FlopCounterMode(display=False) as counter,
        sdpa_kernel(SDPBackend.MATH),
    ):  # a fused one is not counted
        seconds(read, *models)
    return int(counter.get_total_flops())


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("memory").add_argument("kind", choices=("full", "lora"))
    quick = commands.add_parser("speed")
    quick.add_argument("--depth", type=int, default=24)
    quick.add_argument("--batch", type=int, default=1)
    quick.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.what == "memory":
        memory(arguments.kind)
    else:
        speed(arguments.depth, arguments.batch, arguments.repeats)


if __name__ == "__main__":
    main()
