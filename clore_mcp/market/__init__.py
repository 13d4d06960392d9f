"""Servers on the marketplace, and their prices including all fees."""
