"""The cost of clore-mcp, measured beside its peers: `python -m benchmarks`. The results are in docs/benchmarks.md."""
