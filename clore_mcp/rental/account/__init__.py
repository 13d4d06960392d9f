"""The account as Clore shows it: orders, wallets, whose they are, what was spent, and its clock."""
