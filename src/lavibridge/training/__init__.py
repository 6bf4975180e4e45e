"""Trains a recipe into a run folder.

`train.train` is the public function. `loop` takes the steps, `session` holds and saves their state, and
`run_folder` checks and writes the run folder. The packages are `data` (the samples of each step), `alignment`
and `pivot` (the stages before the first step), `objectives` (the teacher), `cache` (encoded images and
captions), `distributed` (processes and sharded weights), `checkpoints` (saving and resuming) and `reporting`
(logs, trackers, warnings and sample images).
"""
