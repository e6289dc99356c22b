import pytest
import torch

from core.errors import ConfigError, TrainingError
from core.training.library_errors import library_errors_in_one_line


def change_in_place():
    x = torch.ones(2, requires_grad=True).exp()
    y = x.exp()
    x.add_(1)
    y.sum().backward()


def go_back_twice():
    x = torch.ones(2, requires_grad=True).exp().exp().sum()
    x.backward()
    x.backward()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (change_in_place, r"write x = x \+ y instead of x \+= y"),
        (go_back_twice, "keeps a tensor with its gradient from an earlier step"),
    ],
)
def test_errors_of_the_backward_pass_say_what_a_part_does(function, message):
    with pytest.raises(TrainingError, match=message), library_errors_in_one_line():
        function()


def test_a_full_memory_names_what_takes_less():
    with (
        pytest.raises(ConfigError, match=r"^train\.batch_size: out of memory \(.*; lower it"),
        library_errors_in_one_line(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shapes"), library_errors_in_one_line():
        raise RuntimeError("shapes do not fit")
