"""Exports a model as a verified ONNX file."""
