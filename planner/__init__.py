"""Placement of modules: cost model and algorithms (pure), the state of the site (pure), the planner service."""
