"""A signal asks a run to stop; a second one, or one afterwards, acts as it did before."""

import os
import signal
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric

from core.training.signals import StopSignal


class Processes:
    """Stands for Fabric with two processes, of which the other has received a signal, or 0."""

    world_size = 2
    device = torch.device("cpu")

    def __init__(self, other: int) -> None:
        self.other = other
        self.asked = 0

    def all_reduce(self, number: torch.Tensor, reduce_op: str) -> torch.Tensor:
        assert reduce_op == "max"
        self.asked += 1
        return torch.maximum(number, torch.tensor(float(self.other)))


@pytest.fixture(autouse=True)
def pythons_own_handler() -> Iterator[None]:
    """A shell that starts the tests in the background lets them ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_signal_is_remembered_and_the_second_one_acts():
    fabric = Fabric(accelerator="cpu", devices=1)
    with StopSignal() as stop:
        assert not stop.requested(fabric, ask=True)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested(fabric, ask=False)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_act_as_before():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with StopSignal():
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_all_processes_stop_when_one_was_asked_to():
    stop, fabric = StopSignal(), Processes(other=signal.SIGTERM)
    assert not stop.requested(fabric, ask=False)
    assert fabric.asked == 0
    assert stop.requested(fabric, ask=True)
    assert stop.received == signal.SIGTERM
    assert not StopSignal().requested(Processes(other=0), ask=True)
