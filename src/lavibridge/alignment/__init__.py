"""Alignment objectives: what a bridge learns of a teacher's conditioning from captions alone.

One file per kind, chosen by `training.align.match`. `base.py` holds the contract.
"""
