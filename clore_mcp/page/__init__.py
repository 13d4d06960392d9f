"""The person's page on loopback: what needs approval, what runs and costs, prices, the record and the stop button."""
