"""`python -m core.run`, where every process writes its averages to RUN/rank_N.safetensors."""

import sys

from safetensors.torch import save_file

from core import run
from core.training import train as train_module


def fit(settings, first):
    done = original(settings, first)
    averages = {name: x.clone() for name, x in settings.averages.by_name().items()}
    save_file(averages, settings.folder / f"rank_{settings.fabric.global_rank}.safetensors")
    return done


original = train_module.fit
if __name__ == "__main__":
    train_module.fit = fit
    sys.exit(run.main(sys.argv[1:]))
