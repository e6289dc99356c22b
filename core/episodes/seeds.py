"""Which seeds demonstrations use, and which evaluations."""

# Evaluations use this seed and higher seeds, and demonstrations use lower seeds. So no evaluation
# has the same scene as a demonstration.
EVALUATION_SEEDS = 1_000_000
# Many libraries take seeds of 32 bits.
LAST_SEED = 2**32 - 1
