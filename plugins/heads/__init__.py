"""Policy heads, which turn hidden states into actions: `PolicyHead` in core/contracts/parts.py.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
