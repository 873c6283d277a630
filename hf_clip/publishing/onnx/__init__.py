"""The export as ONNX graphs that need no torch."""
