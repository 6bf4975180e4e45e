"""Published compositional benchmarks: their rules, and the detectors and question-answering models they
use."""
