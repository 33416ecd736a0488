"""Export: tracing and folding, file formats, quantisation, and the comparison with PyTorch."""
