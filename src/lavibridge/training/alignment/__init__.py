"""The alignment stage, before the first training step: the connector learns from captions alone.

`stage.py` runs it and `aligner.py` takes its steps; the objectives are in `lavibridge/alignment`.
"""
