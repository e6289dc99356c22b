"""Action tokens, which lay out the sequences and say which tokens attend to which.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
