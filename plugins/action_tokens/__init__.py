"""Components that add action tokens, lay out sequences and say which token attends to which.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
