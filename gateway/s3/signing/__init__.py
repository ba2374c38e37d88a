"""Who signed a request, and whether the signature holds: Signature Version 4 and 2, presigned URLs, policies of forms."""
