"""The stage of training that comes before the first step: the connector learns from captions alone.

`stage.py` runs it, `aligner.py` takes its steps; the objectives are in `lavibridge/alignment`.
"""
