"""The S3 protocol as tables and pure functions of values. No I/O, no async, no clock, nothing of ours outside this folder.

Where to look:

here         operations, errors: what S3 offers and what it refuses; request, reply; what is named: names, headers, ranges,
             conditions, tags, times; features of one file each: acl, bucket_log, cors, locks, notification, restore;
             configurations: kept and given back
signing/     who asks: credentials, sigv4, sigv2, hoisting; post_policy for a browser's upload
body/        payload, chunked, checksums; form: a browser's upload
xml/         read and write, on pieces and text; listings; schema, with configurations
policy/      read, and evaluation with what it asks for: actions, conditions, context, patterns; public
lifecycle/   rules, read and check; due: when something is to be done
website/     configuration, pages
"""
