"""The base of every package: contracts, configuration, the registry, errors, files, devices and logging."""
