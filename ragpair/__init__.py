"""ragpair."""
