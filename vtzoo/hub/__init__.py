"""Models on the Hugging Face Hub: found, downloaded once, verified."""
