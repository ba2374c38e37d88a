"""Lifecycle configurations: read, checked, and what is due by them."""
