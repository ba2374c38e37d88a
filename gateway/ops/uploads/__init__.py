"""Bodies on their way in: cut into chunks, stored, committed; multipart uploads and forms."""
