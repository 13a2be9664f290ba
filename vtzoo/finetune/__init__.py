"""Fine-tuning of a pretrained model on a user's labelled images."""
