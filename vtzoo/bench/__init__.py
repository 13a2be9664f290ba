"""The speed of a model on this machine."""
