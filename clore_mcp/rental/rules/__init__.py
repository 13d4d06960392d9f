"""Spending rules: the check of each spending step, bills, and the record of a bid that a bill needs."""
