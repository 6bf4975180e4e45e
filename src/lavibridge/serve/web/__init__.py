"""The HTTP side: routes, what is let in, and what is said about it."""
