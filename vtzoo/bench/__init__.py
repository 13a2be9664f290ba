"""Benchmarks of a model on each runtime and precision."""
