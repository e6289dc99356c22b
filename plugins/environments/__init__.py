"""Environments, in which policies are evaluated; see core/environments/environment.py.

metaworld.py is an example in one file.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
