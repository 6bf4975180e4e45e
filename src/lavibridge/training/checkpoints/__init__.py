"""Saves and resumes runs: checkpoint files, the disk space that they need, and the run's fingerprint.

`checkpoint` writes and reads checkpoints, `disk_space` checks before the first step that they fit, and
`run_fingerprint` identifies the data and models of a run, which must stay the same.
"""
