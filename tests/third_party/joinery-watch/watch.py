"""A logger that writes lines of text, and a callback that finds the largest gradient."""

from dataclasses import dataclass

import torch

from core import Callback, hookimpl


@dataclass(frozen=True)
class TextConfig:
    """Lines of text."""

    file: str = "figures.txt"
    """name of the file in the run's folder."""


class TextLogger:
    """Writes a line for each figure: its step, its name and its value."""

    def __init__(self, config, *, run, first):
        mode = "a" if first else "w"  # a run that resumes goes on in the same file
        self.file = (run / config.file).open(mode, encoding="utf-8")

    def log_hyperparams(self, params):
        self.file.write(f"# seed {params['train']['seed']}\n")

    def log_metrics(self, metrics, step):
        for name, value in metrics.items():
            self.file.write(f"{step} {name} {value:.6g}\n")

    def save(self):
        self.file.flush()

    def finalize(self, status):
        self.file.write(f"# {status}\n")
        self.file.close()


@dataclass(frozen=True)
class GradientPeakConfig:
    """The largest gradient between two validations; without keys."""


class GradientPeak(Callback):
    """Logs the largest norm of the gradient since the validation before."""

    def __init__(self, config):
        self.peak = None

    def after_step(self, step, values):  # stays on the device, so the step does not wait for it
        norm = values["gradient_norm"]
        self.peak = norm if self.peak is None else torch.maximum(self.peak, norm)

    def after_validation(self, step, metrics):
        peak, self.peak = self.peak, None
        return {} if peak is None else {"gradient_norm": float(peak)}


@hookimpl
def register_loggers(register):
    register("text", TextConfig, TextLogger)


@hookimpl
def register_callbacks(register):
    register("gradient_peak", GradientPeakConfig, GradientPeak)
