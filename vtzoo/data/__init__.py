"""Labelled images: one reader per kind of source, splits, checks, decoding and the evaluation transform. No torch."""
