"""Parts of language families: token ids, loading, blocks, and the text side of a pipeline."""
