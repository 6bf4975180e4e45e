"""Encoded images and language features, computed once and cached in memory or in a shared folder.

`latents` and `features` compute and look up entries, `backend` stores them in memory or on disk, `store` and
`shard` define the files on disk, `keys` hashes everything that affects an entry, and `precompute` fills a
folder before training.
"""
