"""Lifecycles of buckets carried out: what is old enough goes, or gets another label.

book      the lifecycles of buckets that were asked about lately, for answers to clients
judging   pages of the metadata in, steps that are due out: decides, and does nothing
scan      one look through a bucket, and the commands that come of it
worker    one gateway of all does it (gateway/duties.py), bucket after bucket, at a pace that leaves room for clients
progress  how far it is, kept with the bucket: another machine goes on from there

When something is due is arithmetic (gateway/s3/lifecycle/due.py); whether it still holds is decided in the log
(consensus/apply/lifecycle.py).
"""
