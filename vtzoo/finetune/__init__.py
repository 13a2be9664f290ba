"""Fine-tuning on people's own images."""
