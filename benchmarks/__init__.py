"""What the client costs, beside its limit and its peers; `python -m benchmarks` runs all of it."""
