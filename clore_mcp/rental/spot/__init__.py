"""Spot bids: their cost, the question before a raise, and raising and lowering them."""
