"""Parts that the vision families share: loading, schedules, attention, padding, toys."""
