"""Chunks on disks: bytes under the digest of their content. Knows nothing of buckets, keys or S3.

A chunk's life: received with the checksum of each block, made durable (segment or file), acknowledged, listed by the
commit that brings it, read with verification, and removed by its own node once no commit can name it any more.
"""
