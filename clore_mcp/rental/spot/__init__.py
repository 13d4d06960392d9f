"""Spot bids: what they come to, their question, raising and lowering."""
