"""Connectors map text features to conditioning; each file is one kind."""
