"""Checks of the machine, the packages and the caches."""
