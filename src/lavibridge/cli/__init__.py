"""The command `lavi`, with one file per subcommand; each imports its dependencies only when called."""
