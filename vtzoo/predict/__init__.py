"""Loads classifiers from model folders and ONNX files, and predicts the classes of images."""
