"""An expert demonstrates tasks in an environment, into an episode store.

collect.py: the whole collection.
schedule.py: what to attempt and to store next.
recording.py: runs the attempts and writes their episodes.
expert.py: one demonstration.
progress.py: the progress in the console.
"""
