"""Spending rules: limits, bills, terms and the check of each spending step."""
