"""What a run can continue from: the files of a checkpoint, the disk space they need, and what has to match.

`checkpoint` writes and reads them, `disk_space` checks before the first step that they fit, and
`run_fingerprint` identifies the data and models that they belong to.
"""
