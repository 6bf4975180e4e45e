"""Runs with several processes: how they communicate and agree, and how they share the frozen weights.

`processes` is the only module that uses Accelerate; `sharding` splits the frozen models with FSDP2.
"""
