"""The ends of orders: leases and who keeps them, cancels and their proof, extensions, the brake."""
