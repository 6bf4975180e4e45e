"""Chooses the samples of each step, with their captions, noise and timesteps.

Everything here is a function of the seed and the position alone, so a run resumes at any step without stored
generator state. `order` and `bucketed` choose the sample, `sampler` its shape and mirroring; `held_out`
separates the validation samples; `batches` assembles the batches of the loop.
"""
