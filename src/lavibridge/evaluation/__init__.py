"""Evaluates bridges: suites of prompts, metrics, and statistics with n and interval for every number."""
