"""Augmentations of whole batches on the training device, drawn per image."""
