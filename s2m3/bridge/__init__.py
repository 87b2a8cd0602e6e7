"""The bridge: answers and states of the site for a house, bindings of its topics to tasks."""
