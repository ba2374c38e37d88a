"""Website endpoints: buckets shown to browsers, by host name. Errors are pages, requests carry no signature.

    host name -> bucket (hosts.py) -> redirects, index and error documents, the object (endpoint.py)

Whoever asks is nobody in particular: a page is seen if everybody may read it.
"""
