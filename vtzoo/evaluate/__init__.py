"""Evaluates trained models on labelled images, on either backend, without torch."""
