"""The widths that shipped modules agree on: of what one of them sends and another one reads."""

__all__ = ["CLASSES", "EMBEDDING"]

#: Length of a MiniLM sentence embedding.
EMBEDDING = 384
#: How many ImageNet classes there are: length of the classifier's logits.
CLASSES = 1000
