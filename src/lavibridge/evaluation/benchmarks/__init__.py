"""Published compositional benchmarks: their rules, and the detectors and answerers that they ask."""
