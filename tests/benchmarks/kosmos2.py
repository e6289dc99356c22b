"""Kosmos-2's parts: speed against transformers' model, and memory of a full-size training step.

    python -m tests.benchmarks.kosmos2 speed
    python -m tests.benchmarks.kosmos2 memory full
    python -m tests.benchmarks.kosmos2 memory lora

Weights are random; sizes are those of recipes/robovlms_kosmos_calvin.toml.

Speed: forward and backward of the same sequences with the same weights, in turn in one process,
and in the opposite order in each second round, so that a busy machine slows all of them. A ratio
is transformers' time over Joinery's, in each round and for the least times, which other programs
disturb least.

Memory: the largest resident size of the process that builds the policy, takes its first step
(which also measures the joint-training table), and then saves it as a checkpoint.
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
from core.policy.publishing import MODEL, published_model
from core.recipe.contents import Recipe
from core.recipe.recipe import load_recipe
from core.registry.catalogue import load_plugins
from core.training.joint_table import JointTable
from core.training.optimizer import build_optimizer
from core.weights.checkpoint import save_checkpoint
from plugins.text.sentencepiece import SHIPPED

RECIPE = Path(__file__).parents[2] / "recipes" / "robovlms_kosmos_calvin.toml"
PARTS = ("vision_encoder", "text_encoder", "backbone")
INSTRUCTION = "push the red block to the left"


def recipe_with(*overrides: str) -> Recipe:
    """Return RoboVLMs' recipe on one device, with random weights and the shipped vocabulary.

    The embedding table keeps its size.
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
    """Multiplies bfloat16 matrices in float32, one product at a time.

    All that stays in memory stays bfloat16. A processor without bfloat16 instructions takes a
    hundred times longer otherwise.
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
    """Print the peak memory of a training step.

    kind: "full" trains all weights, "lora" trains adapters on the decoder and freezes the rest.
    """
    adapters = ["backbone.train=lora", "vision_encoder.train=false", "text_encoder.train=false"]
    adapters += [f"{kind}.pretrained=false" for kind in MODEL]  # the memory is the same
    recipe = recipe_with(
        "data.window=2", "train.precision=bf16-true", *(adapters if kind == "lora" else [])
    )
    policy = policy_of(recipe).to(torch.bfloat16).train()  # as train.precision = "bf16-true" does
    total = sum(p.numel() for p in policy.parameters())
    trainable = sum(p.numel() for p in policy.parameters() if p.requires_grad)
    print(f"{kind}: {trainable:,} of {total:,} parameters train")
    report("building it in float32, then bfloat16")
    optimizer = build_optimizer(policy, recipe)
    started = time.perf_counter()
    with Float32Products(), sdpa_kernel(SDPBackend.MATH):
        policy(batch_of(policy, 1, 2, recipe.data.cameras), generator()).losses["total"].backward()
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
    """Print the largest resident size of this process since the last report, and begin anew."""
    status = Path("/proc/self/status").read_text().splitlines()
    kib = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    print(f"peak {kib * 1024 / 1e9:.1f} GB while {what}", flush=True)
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
    reference = transformers_model(policy)
    inputs = batch_of(policy, batch, 1, recipe.data.cameras)
    steps: dict[str, Callable[[], Tensor]] = {
        "Joinery": lambda: policy.context(inputs, generator()).readout.flatten(0, 2),
        "transformers' decoder": lambda: run_reference(reference, policy, inputs, logits=False),
        "with its output layer, as RoboVLMs calls it": lambda: run_reference(
            reference, policy, inputs, logits=True
        ),
    }
    raise_unless_equal(steps)
    keep_freed_memory()
    flops = {name: operations(step, policy, reference) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats):
        for name in list(steps)[:: -1 if number % 2 else 1]:
            times[name].append(seconds(steps[name], policy, reference))
    print(f"{depth} layers of each network at full width, batch {batch}, two cameras, ", end="")
    print(f"float32, {repeats} rounds")
    for name in list(steps)[1:]:
        pairs = zip(times[name], times["Joinery"], strict=True)
        ratios = sorted(other / joinery for other, joinery in pairs)
        spread = f"median {statistics.median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f}"
        least = min(times[name]) / min(times["Joinery"])
        print(f"{name}, over Joinery's: time {spread}, of the least {least:.2f}; ", end="")
        print(f"operations {flops[name] / flops['Joinery']:.3f}")


def keep_freed_memory() -> None:
    """Have the C library (glibc) keep freed memory for the next step.

    Otherwise it returns the memory to the system. Fetching seven gigabytes of
    gradients anew for each step took up to half of its time, the same in every model, and varied
    by more than the models differ.
    """
    most_mapped, trim_above = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of glibc's malloc.h
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(most_mapped, 0) and libc.mallopt(trim_above, -1)):
        raise OSError("mallopt refused: this benchmark needs glibc's allocator")


@torch.no_grad()
def raise_unless_equal(steps: dict[str, Callable[[], Tensor]]) -> None:
    """Check that all steps compute the same."""
    expected, *others = (step() for step in steps.values())
    for other in others:
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-4)


def transformers_model(policy: Policy) -> torch.nn.Module:
    """Return transformers' own model, which shares the memory of the policy's weights.

    It uses the attention that it chooses itself.
    """
    transformers = import_library("transformers", extra="vlm")
    weights, description = published_model(policy)
    model = transformers.Kosmos2ForConditionalGeneration(transformers.Kosmos2Config(**description))
    keys = model.load_state_dict(
        {name: x.detach() for name, x in weights.items()}, strict=False, assign=True
    )
    assert keys == (["text_model.lm_head.weight"], []), keys  # tied to the embedding
    model.tie_weights()
    return model.train()


def run_reference(model: torch.nn.Module, policy: Policy, batch: Batch, *, logits: bool) -> Tensor:
    """Run the same sequence through transformers' model and return the hidden state at [LRN].

    The sequence is <s>, images, words, [LRN].
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


def seconds(step: Callable[[], Tensor], *models: torch.nn.Module) -> float:
    """Time forward and backward; gradients are freed at once, as those of two would not fit."""
    started = time.perf_counter()
    step().square().sum().backward()
    took = time.perf_counter() - started
    for model in models:
        model.zero_grad(set_to_none=True)
    return took


def operations(step: Callable[[], Tensor], *models: torch.nn.Module) -> int:
    """Count the floating-point operations of the products in forward and backward."""
    # the counter does not count fused attention
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        seconds(step, *models)
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
