"""Spot bids: their cost and record, the question before a raise, and raising and lowering them."""
