"""What the demo brings along, so that it needs nothing set up: a broker, a Redis, and texts with labels."""
