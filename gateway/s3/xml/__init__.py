"""XML documents, read and written with S3's own names and order."""
