"""A browser's form upload (multipart/form-data, RFC 7578) as a stream: first the fields, then the file.

S3's rule: `file` is the last field that counts; what comes after it is ignored. So everything that decides is known before
the file's first byte, and the file is never held in memory. python-multipart finds the boundaries.
"""

from collections import deque
from collections.abc import AsyncIterator

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.s3.errors import S3Error
from gateway.s3.request import Body

FIELDS_BYTES_MAX = 20 << 10
"""AWS: all fields before the file, names and values."""

FIELDS_MAX = 200

PREAMBLE_BYTES_MAX = 64 << 10
"""Everything before the file: fields, their headers, boundaries and padding."""

STEP_BYTES = 16 << 10
"""Given to the parser at once."""

HEADER_BYTES_MAX = 4 << 10
HEADERS_MAX = 16
"""Of one part."""


def boundary_of(content_type: str) -> bytes:
    """S3Error PreconditionFailed for what is no form, MalformedPOSTRequest for one without a boundary."""
    kind, options = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise S3Error("PreconditionFailed", "At least one of the pre-conditions you specified did not hold",
                      Condition="Bucket POST must be of the enclosure-type multipart/form-data")
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 70:
        raise S3Error("MalformedPOSTRequest")
    return boundary


class Form:
    """`fields` (lower-case names) after `begin`; then, as a Body, the bytes of the file."""

    def __init__(self, body: Body, boundary: bytes) -> None:
        self.length: int | None = None
        self.fields: dict[str, str] = {}
        self.filename = ""
        self._pieces = aiter(body)
        self._size = self._read = 0
        self._name, self._value = "", bytearray()
        self._header_name, self._header_value = bytearray(), bytearray()
        self._headers: dict[str, str] = {}
        self._in_file = self._file_ended = False
        self._file: deque[bytes] = deque()
        self._parser = MultipartParser(boundary, {
            "on_part_begin": self._part_begins, "on_part_data": self._part_data, "on_part_end": self._part_ends,
            "on_header_begin": self._header_begins, "on_header_field": self._header_field,
            "on_header_value": self._header_is, "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_finished,
        }, max_header_count=HEADERS_MAX, max_header_size=HEADER_BYTES_MAX)

    async def begin(self) -> None:
        """Read up to the file's first bytes. S3Error MalformedPOSTRequest, MaxPostPreDataLengthExceeded,
        InvalidArgument without a file."""
        while not self._in_file:
            if self._read > PREAMBLE_BYTES_MAX:
                raise S3Error("MaxPostPreDataLengthExceeded")
            if not await self._more():
                raise S3Error("InvalidArgument", "POST requires exactly one file upload per request.",
                              ArgumentName="file", ArgumentValue="0")

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._file:
            if self._file_ended:
                await self._drop_rest()
                raise StopAsyncIteration
            if not await self._more() and not self._file_ended:
                raise S3Error("MalformedPOSTRequest")          # the closing boundary is missing: the file may be cut
        return self._file.popleft()

    async def read(self, limit: int) -> bytes:
        read = bytearray()
        async for piece in self:
            read += piece
            if len(read) > limit:
                raise S3Error("EntityTooLarge", ProposedSize=len(read), MaxSizeAllowed=limit)
        return bytes(read)

    async def _more(self) -> bool:
        try:
            piece = await anext(self._pieces)
        except StopAsyncIteration:
            return False
        data = bytes(piece)
        try:
            for start in range(0, len(data), STEP_BYTES):
                step = data[start : start + STEP_BYTES]
                self._parser.write(step)
                self._read += len(step)
                if self._file_ended:
                    break                # what follows counts no more, whatever it looks like
                if not self._in_file and self._read > PREAMBLE_BYTES_MAX:
                    raise S3Error("MaxPostPreDataLengthExceeded")
        except MultipartParseError:
            if not self._file_ended:
                raise S3Error("MalformedPOSTRequest") from None
        return True

    async def _drop_rest(self) -> None:
        """What follows the file counts no more, but belongs to this request."""
        async for _ in self._pieces:
            pass

    # What the parser finds

    def _part_begins(self) -> None:
        self._headers = {}
        self._name, self._value = "", bytearray()

    def _header_begins(self) -> None:
        self._header_name, self._header_value = bytearray(), bytearray()

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_is(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_ends(self) -> None:
        self._headers[self._header_name.decode("latin-1").lower()] = self._header_value.decode("latin-1")

    def _headers_finished(self) -> None:
        if self._file_ended:
            return
        disposition, options = parse_options_header(self._headers.get("content-disposition", ""))
        name = options.get(b"name", b"")
        if disposition != b"form-data" or not name:
            raise S3Error("MalformedPOSTRequest")
        self._name = name.decode("utf-8", "replace").lower()
        if self._name == "file":
            self._in_file = True
            self.filename = options.get(b"filename", b"").decode("utf-8", "replace")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file_ended:
            return
        if self._in_file:
            self._file.append(data[start:end])
            return
        self._value += data[start:end]
        self._size += end - start
        self._check_size()

    def _part_ends(self) -> None:
        if self._in_file:
            self._file_ended = True
            return
        self._size += len(self._name)
        if len(self.fields) >= FIELDS_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")
        self._check_size()
        try:
            self.fields.setdefault(self._name, self._value.decode())
        except UnicodeDecodeError:
            raise S3Error("MalformedPOSTRequest") from None

    def _check_size(self) -> None:
        if self._size > FIELDS_BYTES_MAX:
            raise S3Error("MaxPostPreDataLengthExceeded")
