"""Explains a prediction: attention maps, class maps and the localization panel."""
