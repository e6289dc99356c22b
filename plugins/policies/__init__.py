"""Published policies whose parts belong together; each policy is a package.

A new built-in component must also be listed in BUILT_INS of core/registry/catalogue.py; installed
packages use the entry-point group "joinery" instead.
"""
