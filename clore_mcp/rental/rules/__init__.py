"""Every spending rule: limits, bills, terms and the one check of a spending step."""
