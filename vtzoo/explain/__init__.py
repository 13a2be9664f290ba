"""Attention maps, class maps and the localization panel."""
