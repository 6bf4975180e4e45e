"""The HTTP side: routes, access, and errors."""
