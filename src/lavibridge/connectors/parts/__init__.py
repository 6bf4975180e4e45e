"""What connectors are built of: read-outs over layers, pooling, blocks."""
