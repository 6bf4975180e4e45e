"""Stored pictures: decodes them safely, checks each once, and lists the rejected ones."""
