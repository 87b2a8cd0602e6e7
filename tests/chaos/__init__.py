#: Seconds that anything awaited may take here: what is broken on purpose comes back late on a busy machine.
WAIT_S = 120.0
