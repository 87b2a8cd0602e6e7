"""Transcription of speech while it arrives: windows of the sound, and agreement of successive transcripts."""
