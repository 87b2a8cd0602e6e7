"""Classes of parts that read texts and write none: encoders, classifiers, rankers."""
