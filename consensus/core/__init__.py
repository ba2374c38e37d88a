"""The vocabulary that every part of Staddle agrees on: names, values, commands, results, frames.

Pure values and small functions. It imports the standard library, the codec's library and a CRC; it never starts Raft,
never opens a database and knows nothing of HTTP.
"""
