"""The S3 protocol as tables and pure functions of values. No I/O, no async, no clock, nothing of ours outside this folder."""
