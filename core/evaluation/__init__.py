"""Success rates of a trained policy.

preparation.py: checks before training.
evaluation.py: the whole evaluation.
results_log.py: the results on disk while an evaluation runs.
recorder.py, predictions.py: the recorded attempts and predictions that reports show.
display.py: the console.
files.py: writes files whole or not at all.
"""
