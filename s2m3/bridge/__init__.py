"""The bridge: publishes answers and states of the site for home automation, and binds other topics to tasks."""
