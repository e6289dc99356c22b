"""Success rates of a trained policy.

preparation.py: checks before training.
evaluation.py: the whole evaluation.
identity.py: what its results depend on.
hints.py, first_images.py: what may be the reason for a low success rate.
results_log.py: the results on disk while an evaluation runs.
recorder.py, film_recording.py, film_files.py: the films of attempts that reports show.
predictions.py: predicted and true actions, which they show, too.
display.py: the console.
files.py: writes files whole or not at all.
"""
