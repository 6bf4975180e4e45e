"""What every room stands on: contracts, configuration, the registry, errors, files, device and log."""
