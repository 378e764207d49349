"""Loads the labelled sets of the cookbook, one module each."""
