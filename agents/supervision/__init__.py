"""Keeps an agent running: the supervisor process, the watchdog, the restart policy and the record of crashes."""
