"""Behaviour as text: scripts that are the specification, the example and the check at once."""
