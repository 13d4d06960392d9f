"""What clore-mcp costs, measured beside its peers: `python -m benchmarks`; the results are in docs/benchmarks.md."""
