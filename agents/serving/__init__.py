"""The data plane of an agent: receives work, joins and batches it, runs modules, and sends outputs on."""
