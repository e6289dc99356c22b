"""An expert demonstrates tasks in an environment; its episodes go into an episode store.

collect.py: the whole collection.
schedule.py: which demonstration to attempt next, and which episode to store next.
recording.py: runs the attempts and writes their episodes.
expert.py: one demonstration.
progress.py: the progress in the console.
"""
