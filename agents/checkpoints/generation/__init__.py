"""Classes of parts that write texts, and what a checkpoint says of them."""
