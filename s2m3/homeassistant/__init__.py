"""Home Assistant: nodes, tasks and the planner as devices on its dashboard, through MQTT discovery."""
