"""Image-caption pairs, each kind in a file of its own name: `tsv`, `folder`, `world`."""
