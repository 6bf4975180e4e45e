"""Which samples each step meets, with their captions, noise and timesteps.

Everything here is a function of the seed and the position alone, so a run continues at any step without any
stored generator state. `order` and `bucketed` choose the sample, `sampler` its shape and mirroring,
`held_out` keeps validation samples away, `batches` assembles what the loop consumes.
"""
