"""The agent: loaders, module runners, batching, joins, gateway, the service. Only this package imports torch."""
