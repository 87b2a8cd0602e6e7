"""Networks of parts: transformers' own classes, whole or without the children of other parts; open_clip's towers."""
