"""Parts of the export command: the graph and its folding, the formats, quantisation, and the comparison with PyTorch."""
