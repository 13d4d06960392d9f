"""Programs that the benchmarks start: those of ours, and the peers', which run in an environment of their own."""
