"""What can be rented on the marketplace, and at what all-in price."""
