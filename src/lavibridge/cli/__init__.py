"""The command `lavi`: one file per verb, each importing its work only when it is called."""
