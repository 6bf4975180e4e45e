"""Reports on a run: lines on stderr, records in `log.jsonl`, trackers, warnings and sample images.

`console` prints lines, `step_metrics` turns a step into a record, `trackers` sends records to TensorBoard,
wandb or trackio, `alerts` warns about weights and data, `timing` measures data loading, and `preview`
generates sample images.
"""
