"""The admin API and the command line, against a real server."""
