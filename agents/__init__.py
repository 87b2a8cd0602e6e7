"""Who works: loaders, module runners, batching, joins, gateway, the agent service. Only this package imports torch."""
