"""Trains on a borrowed machine: for minutes, without a network, with at most 64 MiB per transfer."""
