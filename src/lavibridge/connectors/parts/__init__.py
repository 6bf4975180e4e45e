"""Building blocks of connectors: read-outs over layers, pooling, transformer blocks."""
