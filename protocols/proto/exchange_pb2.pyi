from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RequestPart(_message.Message):
    __slots__ = ("size", "content")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    size: int
    content: bytes
    def __init__(self, size: _Optional[int] = ..., content: _Optional[bytes] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("token", "transport_key", "statement")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_KEY_FIELD_NUMBER: _ClassVar[int]
    STATEMENT_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    transport_key: bytes
    statement: bytes
    def __init__(self, token: _Optional[bytes] = ..., transport_key: _Optional[bytes] = ..., statement: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("status", "fingerprint", "certificate")
    class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[EnrolReply.Status]
        PENDING: _ClassVar[EnrolReply.Status]
        ADMITTED: _ClassVar[EnrolReply.Status]
        REFUSED: _ClassVar[EnrolReply.Status]
    UNKNOWN: EnrolReply.Status
    PENDING: EnrolReply.Status
    ADMITTED: EnrolReply.Status
    REFUSED: EnrolReply.Status
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    status: EnrolReply.Status
    fingerprint: str
    certificate: bytes
    def __init__(self, status: _Optional[_Union[EnrolReply.Status, str]] = ..., fingerprint: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("public_key", "proof")
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    PROOF_FIELD_NUMBER: _ClassVar[int]
    public_key: bytes
    proof: bytes
    def __init__(self, public_key: _Optional[bytes] = ..., proof: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate", "authority", "succession")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    SUCCESSION_FIELD_NUMBER: _ClassVar[int]
    certificate: bytes
    authority: bytes
    succession: bytes
    def __init__(self, certificate: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., succession: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("path",)
    PATH_FIELD_NUMBER: _ClassVar[int]
    path: str
    def __init__(self, path: _Optional[str] = ...) -> None: ...

class FetchReply(_message.Message):
    __slots__ = ("found", "content")
    FOUND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    found: bool
    content: bytes
    def __init__(self, found: _Optional[bool] = ..., content: _Optional[bytes] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("kind", "content")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        UNKNOWN: _ClassVar[SubmitRequest.Kind]
        COUNTRY_BUNDLE: _ClassVar[SubmitRequest.Kind]
        DRAFT_SIGNATURES: _ClassVar[SubmitRequest.Kind]
    UNKNOWN: SubmitRequest.Kind
    COUNTRY_BUNDLE: SubmitRequest.Kind
    DRAFT_SIGNATURES: SubmitRequest.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    kind: SubmitRequest.Kind
    content: bytes
    def __init__(self, kind: _Optional[_Union[SubmitRequest.Kind, str]] = ..., content: _Optional[bytes] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("accepted", "what", "why", "fix")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    WHAT_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    FIX_FIELD_NUMBER: _ClassVar[int]
    accepted: bool
    what: str
    why: str
    fix: str
    def __init__(self, accepted: _Optional[bool] = ..., what: _Optional[str] = ..., why: _Optional[str] = ..., fix: _Optional[str] = ...) -> None: ...

class RelayRequest(_message.Message):
    __slots__ = ("method", "body", "headers", "object", "received")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    METHOD_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    method: str
    body: bytes
    headers: _containers.ScalarMap[str, str]
    object: bytes
    received: str
    def __init__(self, method: _Optional[str] = ..., body: _Optional[bytes] = ..., headers: _Optional[_Mapping[str, str]] = ..., object: _Optional[bytes] = ..., received: _Optional[str] = ...) -> None: ...

class RelayReply(_message.Message):
    __slots__ = ("status", "body", "object")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    status: int
    body: bytes
    object: bytes
    def __init__(self, status: _Optional[int] = ..., body: _Optional[bytes] = ..., object: _Optional[bytes] = ...) -> None: ...
