"""What features of S3 do to each other: a table of situations and answers, run as tests and printed as docs/INTERPLAY.md."""
