"""Success rates of a trained policy.

preparation.py: checks before training.
evaluation.py: the whole evaluation.
results_log.py: results on disk while it runs.
recorder.py, predictions.py: what reports show.
display.py: the console.
files.py: writes files whole or not at all.
"""
