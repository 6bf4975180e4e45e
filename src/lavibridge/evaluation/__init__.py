"""Suites of prompts, metrics and their statistics: no number without its n and its interval."""
