"""What keeps an agent alive: the supervisor process, the watchdog, and what is learnt from crashes."""
