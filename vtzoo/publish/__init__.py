"""Publishes a model folder as one commit on the Hub."""
