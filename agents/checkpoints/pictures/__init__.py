"""Classes of parts that see: encoders, classifiers, detectors, and maps of depth or classes."""
