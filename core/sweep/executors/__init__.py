"""Where the runs of a sweep are run: on this machine, on a SLURM cluster, on a Ray cluster."""
