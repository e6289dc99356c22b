"""A desk arm of six joints, recorded as LeRobot records one, for recipes/own_arm.toml."""
