"""Disks that fill up or turn read-only under a working server: real processes on small mounts of their own."""
