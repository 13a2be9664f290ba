"""Augmentation of whole batches on the training device, with random draws per image."""
