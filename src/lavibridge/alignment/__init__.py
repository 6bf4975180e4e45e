"""Alignment objectives: from captions alone, a bridge learns to reproduce a teacher's conditioning.

There is one file per kind, which `training.align.match` names. `base.py` holds the contract.
"""
