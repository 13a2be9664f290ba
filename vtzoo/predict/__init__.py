"""A model folder or an ONNX file becomes a classifier; images become predictions."""
