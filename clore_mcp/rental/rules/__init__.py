"""Every spending rule: limits, what a bill may come to, what stands against a wish."""
