"""What every room stands on: contracts, configuration, the component registry, errors, files, device and log."""
