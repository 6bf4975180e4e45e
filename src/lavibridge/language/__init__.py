"""Language models: prompts in, features out; one file is one family."""
