"""The ends of orders: a cancel on its way, and the closing of what is proven gone."""
