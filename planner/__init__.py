"""Where modules live: cost model, placement algorithms (pure), plan state (pure), the planner service."""
