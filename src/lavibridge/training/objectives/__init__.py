"""What training learns from the vision model's own text encoder, during its steps and before them.

`native_encoder` opens that encoder and reads captions with it; `teacher` replaces the target of each step by
a prediction under it. Alignment, which comes before the first step, is in `training/alignment`.
"""
