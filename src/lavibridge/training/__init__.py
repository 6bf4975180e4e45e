"""Training: from a recipe to a run folder.

`train.train` is the public door. `loop` takes the steps, `session` holds what they need and saves it, `run`
knows the run folder. The rooms below are `data` (which samples a step meets), `cache` (encoded images and
captions), `objectives` (alignment and the teacher), `distributed` (processes and sharded weights),
`checkpoints` (what a run can continue from) and `reporting` (what a run tells its reader).
"""
