"""A model becomes one self-contained, verified ONNX file."""
