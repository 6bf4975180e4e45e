"""What language families are built of: prompts as token ids."""
