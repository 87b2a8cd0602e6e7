"""Classes of parts that hear or speak, and what Whisper needs beside its decoder."""
