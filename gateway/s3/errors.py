"""The catalogue of S3's errors: code -> (HTTP status, AWS's wording), one exception, and its XML.

A client's mistake is an `S3Error`, raised anywhere above the cluster's packages and rendered in one place, the HTTP
edge. Clients switch on `Code`, some on the extra elements, so both are part of the interface (S3_SEMANTICS §25). The
status of a code is fixed: whoever needs another status needs another code.
"""

# ruff: noqa: E501  (a message stays on its code's line, so that the catalogue reads as a table)

from types import MappingProxyType

from gateway.s3.xml.text import escape_readable

CODES: MappingProxyType[str, tuple[int, str]] = MappingProxyType({
    "NotModified": (304, "Not Modified"),
    "PermanentRedirect": (301, "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all future requests to this endpoint."),
    "TemporaryRedirect": (307, "Please re-send this request to the specified temporary endpoint. Continue to use the original request endpoint for future requests."),
    # 400
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AnnotationLimitExceeded": (400, "The object already has the maximum number of annotations."),
    "AnnotationNameTooLong": (400, "The annotation name is too long."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed."),
    "BadDigest": (400, "The Content-MD5 you specified did not match what we received."),
    "BadRequest": (400, "Bad Request"),
    "CredentialsNotSupported": (400, "This request does not support credentials."),
    "EncryptionTypeMismatch": (400, "The encryption type of the object does not match that of the request."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed size"),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "ExpiredToken": (400, "The provided token has expired."),
    "IdempotencyParameterMismatch": (400, "Parameters on this idempotent request are inconsistent with parameters used in previous request(s)."),
    "IdMismatch": (400, "Document ID does not match the specified configuration ID."),
    "IllegalLocationConstraintException": (400, "The specified location constraint is incompatible for the region specific endpoint this request was sent to."),
    "IllegalVersioningConfigurationException": (400, "The Versioning element must be specified"),
    "IncompleteBody": (400, "The request body terminated unexpectedly"),
    "IncorrectNumberOfFilesInPostRequest": (400, "POST requires exactly one file upload per request."),
    "InlineDataTooLarge": (400, "Inline data exceeds the maximum allowed size."),
    "InvalidAnnotationName": (400, "The annotation name is not valid."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketAclWithObjectOwnership": (400, "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting"),
    "InvalidBucketAclWithBlockPublicAccessError": (400, "Bucket cannot have public ACLs set with BlockPublicAccess enabled"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketOwnerAWSAccountID": (400, "The value of the expected bucket owner parameter must be an AWS Account ID..."),
    "InvalidChunkSizeError": (400, "Only the last chunk is allowed to have a size less than 8192 bytes"),
    "InvalidConfigurationId": (400, "The specified configuration id is invalid."),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidEncryptionAlgorithmError": (400, "The encryption request you specified is not valid. The valid value is AES256."),
    "InvalidHostHeader": (400, "The host headers provided in the request used the incorrect style addressing."),
    "InvalidLocationConstraint": (400, "The specified location-constraint is not valid"),
    "InvalidPart": (400, "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order. Parts must be ordered by part number."),
    "InvalidPolicyDocument": (400, "The content of the form does not meet the conditions specified in the policy document."),
    "InvalidPrefix": (400, "The specified prefix is not valid."),
    "InvalidRedirectLocation": (400, "The website redirect location must have a prefix of 'http://' or 'https://' or '/'."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidRetentionPeriod": (400, "Default retention period must be a positive integer value."),
    "InvalidS3DestinationBucket": (400, "Invalid bucket ARN."),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidTargetBucketForLogging": (400, "The target bucket for logging does not exist"),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "InvalidWriteOffset": (400, "The write offset value that you specified does not match the current object size."),
    "KMS.NotFoundException": (400, "Invalid keyId"),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedACLError": (400, "The XML you provided was not well-formed or did not validate against our published schema"),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed multipart/form-data."),
    "MalformedPolicy": (400, "Policies must be valid JSON and the first byte must be '{'"),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed or did not conform to our published schema."),
    "MalformedXML": (400, "The XML you provided was not well-formed or did not validate against our published schema"),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceeded": (400, "Your POST request fields preceding the upload file were too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size"),
    "MissingRequestBodyError": (400, "Request Body is empty"),
    "MissingSecurityHeader": (400, "Your request was missing a required header"),
    "RequestHeaderSectionTooLarge": (400, "Your request header section exceeds the maximum allowed size."),
    "RequestIsNotMultiPartContent": (400, "Bucket POST must be of the enclosure-type multipart/form-data."),
    "RequestTimeout": (400, "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed"),
    "TooManyConfigurations": (400, "You are attempting to create a new configuration but have already reached the 1,000-configuration limit."),
    "TooManyParts": (400, "You have attempted to add more parts than the maximum of 10000 that are allowed for this object."),
    "UnexpectedContent": (400, "This request does not support content"),
    "UnresolvableGrantByEmailAddress": (400, "The e-mail address you provided does not match any account on record."),
    "UserKeyMustBeSpecified": (400, "The bucket POST must contain the specified field name. If it is specified, please check the order of the fields."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
    # 403
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AccountProblem": (403, "There is a problem with your account that prevents the operation from completing successfully."),
    "AllAccessDisabled": (403, "All access to this object has been disabled"),
    "CrossLocationLoggingProhibitted": (403, "Cross S3 location logging not allowed."),
    "InvalidAccessKeyId": (403, "The AWS Access Key Id you provided does not exist in our records."),
    "InvalidObjectState": (403, "The operation is not valid for the object's storage class"),
    "ObjectAlreadyInActiveTierError": (403, "This object is already in the active tier."),
    "ObjectNotInActiveTierError": (403, "The source object of the COPY action is not in the active tier."),
    "QuotaExceeded": (403, "The quota of the bucket or account would be exceeded."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the current time is too large."),
    "SignatureDoesNotMatch": (403, "The request signature we calculated does not match the signature you provided. Check your key and signing method."),
    # 404
    "MetadataConfigurationNotFound": (404, "The metadata table configuration does not exist."),
    "NoSuchAnnotation": (404, "The specified annotation does not exist."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchObjectLockConfiguration": (404, "The specified object does not have a ObjectLock configuration"),
    "NoSuchPublicAccessBlockConfiguration": (404, "The public access block configuration was not found"),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchUpload": (404, "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The specified bucket does not have a website configuration"),
    "ObjectLockConfigurationNotFoundError": (404, "Object Lock configuration does not exist for this bucket"),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "ReplicationConfigurationNotFoundError": (404, "The replication configuration was not found"),
    "ServerSideEncryptionConfigurationNotFoundError": (404, "The server side encryption configuration was not found"),
    # the rest
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "BucketAlreadyExists": (409, "The requested bucket name is not available. The bucket namespace is shared by all users of the system. Please select a different name and try again."),
    "BucketAlreadyOwnedByYou": (409, "Your previous request to create the named bucket succeeded and you already own it."),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "ConditionalRequestConflict": (409, "The conditional request cannot succeed due to a conflicting operation against this resource."),
    "InvalidBucketState": (409, "The request is not valid with the current state of the bucket."),
    "OperationAborted": (409, "A conflicting conditional operation is currently in progress against this resource. Please try again."),
    "RestoreAlreadyInProgress": (409, "Object restore is already in progress"),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "UnsupportedMediaType": (415, "The media type of the request is not supported."),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SlowDown": (503, "Please reduce your request rate."),
})
"""Status and default message of every code that may be answered."""

HeaderList = tuple[tuple[str, str], ...]


class S3Error(Exception):
    """The answer to a request that was not done. `detail` are the extra XML elements in the order given; a name that
    is no Python identifier goes in as ``**{"Content-MD5": value}``. `headers` are (lower-case name, value), sent with
    the error. An unknown code is our bug."""

    __slots__ = ("code", "detail", "headers", "message", "status")

    def __init__(self, code: str, message: str | None = None, headers: HeaderList = (), **detail: object) -> None:
        status, wording = CODES[code]
        self.code = code
        self.status = status
        self.message = wording if message is None else message
        self.headers = headers
        self.detail: dict[str, object] = detail
        super().__init__(code, self.message)

    def __str__(self) -> str:
        return f"{self.code} ({self.status}): {self.message}"


def render(error: S3Error, request_id: str, host_id: str) -> bytes:
    """The error document: no namespace, and always well-formed, whatever the client sent (AWS, REST error responses).
    AWS documents an element Resource, and leaves it out."""
    elements = "".join(f"<{name}>{escape_readable(str(value))}</{name}>" for name, value in error.detail.items())
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{error.code}</Code>'
        f"<Message>{escape_readable(error.message)}</Message>{elements}"
        f"<RequestId>{escape_readable(request_id)}</RequestId><HostId>{escape_readable(host_id)}</HostId></Error>"
    ).encode()
