"""Imports released weights, exports bridges to other tools, and turns them into Diffusers pipelines."""
