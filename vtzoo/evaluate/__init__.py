"""Measuring trained models on labelled data, on either backend, without torch."""
