"""Suites of prompts, metrics, and statistics that give every number its n and its interval."""
