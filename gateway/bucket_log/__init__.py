"""Access logs of buckets (PutBucketLogging): what was asked of a bucket, delivered as objects to a bucket of its owner's choice.

    request served -> record (recorder.py) -> file of this worker (spool.py) -> object in the target bucket (delivery.py)

Record     a line in AWS's format, the same as in the server's own access log (gateway/http/server_log.py)
Batch      records of one logged bucket, in one file; its first line says where they go
Spool      the folder of a worker's batches: what is in it survives the process, and is delivered later

Delivery is best effort, as on AWS: a record may come twice after a crash, and is dropped when the target has not taken it for
a day or too much waits. A bucket that is not logged costs one look into a dictionary for each request.
"""
