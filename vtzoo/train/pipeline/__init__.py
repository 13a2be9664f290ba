"""From encoded images to batches on the device: decoded once, stored, cropped."""
