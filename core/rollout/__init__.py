"""A policy acts in environments.

plan.py: which attempts and chains an evaluation makes.
queue.py: in which order attempts and chains begin.
attempt.py: one attempt or chain.
runner.py: runs many attempts and chains at once.
actor.py: the policy that acts in all attempts and chains.
loaded_policy.py: the policy that acts for one robot.
results.py: what an evaluation writes.
"""
