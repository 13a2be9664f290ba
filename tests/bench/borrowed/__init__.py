"""Trains on a borrowed machine: minutes at a time, no network, a few megabytes at a time in and out."""
