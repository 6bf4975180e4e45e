"""Connectors: text features in, conditioning out; one file is one kind."""
