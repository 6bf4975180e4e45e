"""Pictures in files: opening them safely, checking them once, and the list of those that were turned away."""
