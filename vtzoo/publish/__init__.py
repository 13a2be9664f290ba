"""A model folder becomes one commit on the Hub."""
