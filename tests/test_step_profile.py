"""The benchmark of a training step: which group an operator belongs to, and times that add up."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.benchmarks.step_profile import (
    ATTENTION,
    CONVOLUTIONS,
    COPIES,
    ELEMENTWISE,
    EXCHANGE,
    MATRIX,
    OPTIMISER,
    OTHER,
    REST,
    Span,
    group_of,
    summarise,
    table,
)


@pytest.mark.parametrize(
    ("names", "group"),
    [
        (["aten::addmm", "aten::linear"], MATRIX),
        (["aten::mkldnn_rnn_layer_backward"], MATRIX),
        (["aten::mkldnn_convolution", "aten::conv2d"], CONVOLUTIONS),
        (["aten::convolution_backward", "ConvolutionBackward0"], CONVOLUTIONS),
        (["aten::_scaled_dot_product_flash_attention_for_cpu_backward"], ATTENTION),
        (["aten::bmm", "aten::_scaled_dot_product_attention_math"], ATTENTION),
        (["aten::add_"], ELEMENTWISE),
        (["aten::native_layer_norm_backward"], ELEMENTWISE),
        (["aten::_softmax_backward_data"], ELEMENTWISE),
        (["aten::mul_", "Optimizer.step#AdamW.step"], OPTIMISER),
        (["aten::mm", "Optimizer.step#Muon.step"], OPTIMISER),
        (["Optimizer.step#AdamW.step"], OPTIMISER),
        (["aten::copy_", "aten::_to_copy"], COPIES),
        (["aten::embedding_dense_backward"], COPIES),
        (["c10d::allreduce_"], EXCHANGE),
        (["aten::empty_strided"], OTHER),
        (["AddmmBackward0"], OTHER),
    ],
)
def test_an_operator_belongs_to_one_group(names: list[str], group: str) -> None:
    assert group_of(names) == group


def test_groups_waiting_and_rest_are_the_whole_step() -> None:
    weights = torch.randn(8, 8, requires_grad=True)
    optimizer = torch.optim.AdamW([weights])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        (torch.randn(8, 8) @ weights).relu().sum().backward()
        optimizer.step()
    # two steps of one second and two profiled ones of three, of which one is spent waiting
    events, timed, profiled = list(profiler.events() or []), Span(2, 1), Span(6, 2)
    times = summarise(events, timed, profiled, steps=2, on_gpu=False)
    assert (times.step, times.profiled, times.waiting) == (1000, 3000, 1000)
    assert {MATRIX, ELEMENTWISE, OPTIMISER} <= times.groups.keys()
    assert sum(times.rows().values()) == pytest.approx(3000)
    assert times.rows()[REST] < 2000
    assert "| optimiser |" in table(times)
