"""The S3 protocol as tables and pure functions of values. No I/O, no async, no clock, nothing of ours outside this folder.

Where to look:

the table       operations, errors: what S3 offers and what it refuses; request, reply
who asks        credentials, sigv4, sigv2, hoisting, payload, chunked; form and post_policy for a browser's upload
what is named   names, headers, ranges, conditions, checksums, tags, times
documents       xml_read and xml_write, on xml_pieces and xml_text; xml_listings; xml_schema with configurations, which are kept
                and given back
features        acl, policy (and policy_*), cors, locks, lifecycle (and lifecycle_*), restore, notification, website (and
                website_pages), bucket_log
"""
