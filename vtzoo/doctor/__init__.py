"""Checks of the installation: packages, runtimes, the machine, the caches and the embedded model."""
