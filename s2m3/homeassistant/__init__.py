"""Home Assistant: nodes, tasks and the planner as devices with entities, through MQTT discovery."""
