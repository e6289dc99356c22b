import io
import json
from pathlib import Path

import pytest
from lightning_fabric import Fabric
from rich.console import Console
from torch import stack, tensor

from core.errors import CheckpointError, TrainingError
from core.training.monitors import Loggers
from core.training.reporting import Display, MetricsLog, Readings


def test_what_an_interrupted_run_wrote_past_its_checkpoint_is_dropped(tmp_path):
    lines = [
        '{"step": 1, "loss": 3.0}\n',
        '{"step": 2, "loss": 2.0}\n',
        '{"step": 3, "loss": 1.0}\n',
        '{"step": 4, "lo',
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    log = MetricsLog(tmp_path, first=2, loggers=Loggers({}, Console()))
    log.write(3, {"loss": 1.5})
    log.close("success")
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert written == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 1.5}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(tmp_path):
    log = MetricsLog(tmp_path, first=0, loggers=Loggers({}, Console()))
    log.file.close()
    log.file = open("/dev/full", "a")  # noqa: SIM115 (the log closes it)
    log.write(1, {"loss": 1.0})
    with pytest.raises(
        CheckpointError, match=r"cannot write the metrics: No space left on device.*--resume"
    ):
        log.flush()
    log.close("success")


def test_readings_are_read_together_and_once():
    readings, fabric = Readings(), Fabric(accelerator="cpu", devices=1)
    for step in (1, 2):
        halves = [({"total": tensor(step / 2)}, ["a"]), ({"total": tensor(step / 2 + 1)}, ["b"])]
        readings.record(step, halves, tensor(0.25), 1.0)
    values = [(reading.step, reading.episodes, read) for reading, read in readings.read(fabric)]
    assert values == [
        (1, ["a", "b"], {"total": 1.0, "gradient_norm": 0.25}),
        (2, ["a", "b"], {"total": 1.5, "gradient_norm": 0.25}),
    ]
    assert readings.read(fabric) == []


def test_steps_of_two_stages_may_have_different_losses():
    readings, fabric = Readings(), Fabric(accelerator="cpu", devices=1)
    readings.record(1, [({"total": tensor(3.0), "pose": tensor(2.0)}, [])], tensor(0.5), 1.0)
    readings.record(2, [({"total": tensor(4.0)}, [])], None, 1.0)
    assert [read for _, read in readings.read(fabric)] == [
        {"total": 3.0, "pose": 2.0, "gradient_norm": 0.5},
        {"total": 4.0},
    ]


def test_without_a_terminal_the_display_prints_lines():
    out = io.StringIO()
    display = Display(100, 0, 8, console=Console(file=out))
    for step in range(10, 101, 10):
        timings = display.update(step, {"loss": 0.5}, waited=0.0)
    display.close()
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("step 10/100  loss 0.5000")
    assert lines[-1].startswith("step 100/100")
    assert "samples/s  data wait 0.0%" in lines[0]
    assert timings["time/samples_per_second"] > 0


def test_on_a_terminal_the_display_is_a_bar():
    out = io.StringIO()
    display = Display(100, 0, 8, console=Console(file=out, force_terminal=True, width=200))
    display.update(50, {"loss": 0.5}, waited=0.0)
    display.close()
    assert "50/100" in out.getvalue()
    assert "loss 0.5000" in out.getvalue()


def test_metrics_are_json_even_if_a_figure_is_not_finite(tmp_path):
    log = MetricsLog(tmp_path, 0, Loggers({}, Console(quiet=True)))
    log.write(1, {"loss": float("nan"), "gradient_norm": float("inf"), "pose": 0.5})
    log.close("finished")

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "metrics.jsonl").read_text()
    written = json.loads(text, parse_constant=refuse)
    assert written == {"step": 1, "loss": None, "gradient_norm": None, "pose": 0.5}


class TwoProcesses:
    """Stands in for Fabric in the first of two processes.

    other: what the second process has gathered.
    """

    world_size, device = 2, "cpu"

    def __init__(self, other):
        self.other = other

    def all_gather(self, x):
        self.own = x
        return stack([x, x if self.other is None else self.other])

    def all_reduce(self, row, reduce_op):
        return row


def test_processes_with_different_terms_are_refused():
    def readings_of(names):
        readings = Readings()
        readings.record(1, [({name: tensor(1.0) for name in names}, [])], None, 1.0)
        return readings

    first, second = TwoProcesses(None), TwoProcesses(None)
    assert readings_of(["total", "action"]).read(first)
    assert readings_of(["total", "action", "smooth"]).read(second)
    with pytest.raises(TrainingError, match="step 1: the processes have different terms"):
        readings_of(["total", "action"]).read(TwoProcesses(second.own))
