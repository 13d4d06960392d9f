"""The person's page: what waits for a yes, what runs and costs, prices, the record and the brake, on loopback."""
