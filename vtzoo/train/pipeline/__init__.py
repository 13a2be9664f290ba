"""From encoded images to batches on the device: decode once, store, crop."""
