"""Where prompts come from, a file each."""
