"""Speech that is still coming, written down while it comes: windows of the sound, and what readings of it agree on."""
