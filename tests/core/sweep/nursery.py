"""`python -m tests.core.sweep.nursery`: starts sweeps of the stand-in, each in a forked process.

It imports everything once, so that a sweep begins at once. For each line of its standard input, the
arguments of `joinery sweep`, it prints the number of a process, and then its exit code.
"""

import os
import sys

import torch

from core.commands import sweep as command
from core.registry.catalogue import load_plugins
from core.sweep import job, sweep
from core.sweep.executors import executor as executor

if __name__ == "__main__":
    torch.set_num_threads(1)
    job.PROGRAM = "tests.core.sweep.stand_in"
    sweep.prepare = lambda recipe, console: None
    load_plugins()
    print(0, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            sys.stdout = sys.stderr
            os._exit(command.main(line.split()))
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
