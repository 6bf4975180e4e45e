"""Plans a run before any download: memory, arithmetic, time and disk."""
