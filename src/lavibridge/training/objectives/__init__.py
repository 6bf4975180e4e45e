"""Learning from the vision model's own text encoder.

`native_encoder` opens that encoder; `teacher` replaces the target of each step with the vision model's
prediction under it. Alignment, which comes before the first step, is in `training/alignment`.
"""
