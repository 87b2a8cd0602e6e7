"""A requester's requests: routing, retries, deadlines, streamed text, and the dispatcher that ties them to a link."""
