"""Optimisers, which change the weights of all parts in each training step.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
