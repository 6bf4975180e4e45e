"""Object detectors, one file per interface of networks; the file name is the kind."""
