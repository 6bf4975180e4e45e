"""What a run tells its reader: lines on stderr, records in `log.jsonl`, trackers, warnings, sample images.

`console` prints, `metrics` turns a step into a record, `trackers` sends records to TensorBoard, wandb or
trackio, `alerts` warns about weights and data, `timing` measures data loading, `preview` draws samples.
"""
