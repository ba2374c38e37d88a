"""`python -m gateway.cli`: the same as `staddle`, for those who start servers from code."""

from gateway.cli import main

main()
