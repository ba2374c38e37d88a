"""Bucket and user policies: read, and evaluated."""
