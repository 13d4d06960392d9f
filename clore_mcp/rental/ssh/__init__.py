"""SSH to an order: its key, the way in, and advice if there is none."""
