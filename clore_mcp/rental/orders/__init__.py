"""Orders that run: how they look and are reached, their ends and who keeps these, cancels with proof, the brake."""
