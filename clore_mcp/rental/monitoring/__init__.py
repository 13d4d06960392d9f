"""What happens to orders unasked: findings, the events they become, who is told."""
