"""How machines become a cluster, and how a process finds its way in one.

machine     who and where this machine is: its name, the ports of its processes, the peers it was told of
tokens      a join token as text: where to knock, how to know the right door, and a secret that is good once
door        what a machine answers to those that want in: members with the cluster's secret, and holders of a token
entering    the other side of the door: where a new machine gets the cluster's secret and root key
remembering the members' addresses in the data folder, so that a restart finds them whatever the settings say

Rules: nothing a stranger sends is decoded, only compared in frames of fixed length; a token's secret half leaves its
holder only towards a door whose certificate fits the token; what a machine was let in with is durable before it starts.
"""
