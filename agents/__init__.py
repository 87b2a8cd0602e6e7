"""Who works: loaders, module runners and batching, join, front, the agent service. Only this package imports torch."""
