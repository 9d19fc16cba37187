from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_BUNDLE: _ClassVar[Phase]
    PHASE_ENCAPSULATE: _ClassVar[Phase]
    PHASE_CONFIRM: _ClassVar[Phase]
    PHASE_CONTRIBUTE: _ClassVar[Phase]
    PHASE_AGREE: _ClassVar[Phase]
    PHASE_ANSWER: _ClassVar[Phase]
PHASE_UNSPECIFIED: Phase
PHASE_BUNDLE: Phase
PHASE_ENCAPSULATE: Phase
PHASE_CONFIRM: Phase
PHASE_CONTRIBUTE: Phase
PHASE_AGREE: Phase
PHASE_ANSWER: Phase

class Signed(_message.Message):
    __slots__ = ("phase", "context", "sender", "receiver", "body", "signature")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    phase: Phase
    context: bytes
    sender: str
    receiver: str
    body: bytes
    signature: bytes
    def __init__(self, phase: _Optional[_Union[Phase, str]] = ..., context: _Optional[bytes] = ..., sender: _Optional[str] = ..., receiver: _Optional[str] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class DocumentVersions(_message.Message):
    __slots__ = ("root", "targets", "countries")
    class CountriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    ROOT_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    COUNTRIES_FIELD_NUMBER: _ClassVar[int]
    root: int
    targets: int
    countries: _containers.ScalarMap[str, int]
    def __init__(self, root: _Optional[int] = ..., targets: _Optional[int] = ..., countries: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("signed", "model", "parts", "commitments")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    signed: Signed
    model: bytes
    parts: bytes
    commitments: bytes
    def __init__(self, signed: _Optional[_Union[Signed, _Mapping]] = ..., model: _Optional[bytes] = ..., parts: _Optional[bytes] = ..., commitments: _Optional[bytes] = ...) -> None: ...

class RequestBody(_message.Message):
    __slots__ = ("agreement", "study", "run_id", "versions", "bundle", "encapsulate", "confirm", "contribute", "answer", "agree")
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    STUDY_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATE_FIELD_NUMBER: _ClassVar[int]
    CONFIRM_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    AGREE_FIELD_NUMBER: _ClassVar[int]
    agreement: str
    study: str
    run_id: bytes
    versions: DocumentVersions
    bundle: BundleRequest
    encapsulate: EncapsulateRequest
    confirm: ConfirmRequest
    contribute: ContributeRequest
    answer: AnswerRequest
    agree: AgreeRequest
    def __init__(self, agreement: _Optional[str] = ..., study: _Optional[str] = ..., run_id: _Optional[bytes] = ..., versions: _Optional[_Union[DocumentVersions, _Mapping]] = ..., bundle: _Optional[_Union[BundleRequest, _Mapping]] = ..., encapsulate: _Optional[_Union[EncapsulateRequest, _Mapping]] = ..., confirm: _Optional[_Union[ConfirmRequest, _Mapping]] = ..., contribute: _Optional[_Union[ContributeRequest, _Mapping]] = ..., answer: _Optional[_Union[AnswerRequest, _Mapping]] = ..., agree: _Optional[_Union[AgreeRequest, _Mapping]] = ...) -> None: ...

class BundleRequest(_message.Message):
    __slots__ = ("roster",)
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    roster: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, roster: _Optional[_Iterable[str]] = ...) -> None: ...

class EncapsulateRequest(_message.Message):
    __slots__ = ("bundles",)
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, bundles: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class ConfirmRequest(_message.Message):
    __slots__ = ("encapsulations",)
    ENCAPSULATIONS_FIELD_NUMBER: _ClassVar[int]
    encapsulations: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, encapsulations: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class ContributeRequest(_message.Message):
    __slots__ = ("round", "phase_kind")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    PHASE_KIND_FIELD_NUMBER: _ClassVar[int]
    round: int
    phase_kind: str
    def __init__(self, round: _Optional[int] = ..., phase_kind: _Optional[str] = ...) -> None: ...

class AgreeRequest(_message.Message):
    __slots__ = ("round", "countries")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COUNTRIES_FIELD_NUMBER: _ClassVar[int]
    round: int
    countries: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, round: _Optional[int] = ..., countries: _Optional[_Iterable[str]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("round", "countries", "heads", "versions", "assents")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COUNTRIES_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    ASSENTS_FIELD_NUMBER: _ClassVar[int]
    round: int
    countries: _containers.RepeatedScalarFieldContainer[str]
    heads: _containers.RepeatedCompositeFieldContainer[Signed]
    versions: _containers.RepeatedCompositeFieldContainer[DocumentVersions]
    assents: _containers.RepeatedCompositeFieldContainer[Signed]
    def __init__(self, round: _Optional[int] = ..., countries: _Optional[_Iterable[str]] = ..., heads: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ..., versions: _Optional[_Iterable[_Union[DocumentVersions, _Mapping]]] = ..., assents: _Optional[_Iterable[_Union[Signed, _Mapping]]] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("bundle", "encapsulation", "confirmation", "contribution", "answer", "assent", "refused", "words")
    BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATION_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATION_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ASSENT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    WORDS_FIELD_NUMBER: _ClassVar[int]
    bundle: Signed
    encapsulation: EncapsulationReply
    confirmation: Signed
    contribution: Contribution
    answer: Signed
    assent: Signed
    refused: Refused
    words: bytes
    def __init__(self, bundle: _Optional[_Union[Signed, _Mapping]] = ..., encapsulation: _Optional[_Union[EncapsulationReply, _Mapping]] = ..., confirmation: _Optional[_Union[Signed, _Mapping]] = ..., contribution: _Optional[_Union[Contribution, _Mapping]] = ..., answer: _Optional[_Union[Signed, _Mapping]] = ..., assent: _Optional[_Union[Signed, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., words: _Optional[bytes] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("code",)
    CODE_FIELD_NUMBER: _ClassVar[int]
    code: str
    def __init__(self, code: _Optional[str] = ...) -> None: ...

class Bundle(_message.Message):
    __slots__ = ("x25519", "mlkem", "versions")
    X25519_FIELD_NUMBER: _ClassVar[int]
    MLKEM_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    x25519: bytes
    mlkem: bytes
    versions: DocumentVersions
    def __init__(self, x25519: _Optional[bytes] = ..., mlkem: _Optional[bytes] = ..., versions: _Optional[_Union[DocumentVersions, _Mapping]] = ...) -> None: ...

class EncapsulationReply(_message.Message):
    __slots__ = ("signed", "ciphertexts")
    SIGNED_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXTS_FIELD_NUMBER: _ClassVar[int]
    signed: Signed
    ciphertexts: bytes
    def __init__(self, signed: _Optional[_Union[Signed, _Mapping]] = ..., ciphertexts: _Optional[bytes] = ...) -> None: ...

class Encapsulations(_message.Message):
    __slots__ = ("sender_bundle", "encapsulations")
    SENDER_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    ENCAPSULATIONS_FIELD_NUMBER: _ClassVar[int]
    sender_bundle: bytes
    encapsulations: _containers.RepeatedCompositeFieldContainer[Encapsulation]
    def __init__(self, sender_bundle: _Optional[bytes] = ..., encapsulations: _Optional[_Iterable[_Union[Encapsulation, _Mapping]]] = ...) -> None: ...

class Encapsulation(_message.Message):
    __slots__ = ("receiver", "receiver_bundle", "ciphertext_digest")
    RECEIVER_FIELD_NUMBER: _ClassVar[int]
    RECEIVER_BUNDLE_FIELD_NUMBER: _ClassVar[int]
    CIPHERTEXT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    receiver: str
    receiver_bundle: bytes
    ciphertext_digest: bytes
    def __init__(self, receiver: _Optional[str] = ..., receiver_bundle: _Optional[bytes] = ..., ciphertext_digest: _Optional[bytes] = ...) -> None: ...

class Confirmations(_message.Message):
    __slots__ = ("macs",)
    MACS_FIELD_NUMBER: _ClassVar[int]
    macs: bytes
    def __init__(self, macs: _Optional[bytes] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("head", "shares", "commitments", "versions")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    head: Signed
    shares: bytes
    commitments: bytes
    versions: DocumentVersions
    def __init__(self, head: _Optional[_Union[Signed, _Mapping]] = ..., shares: _Optional[bytes] = ..., commitments: _Optional[bytes] = ..., versions: _Optional[_Union[DocumentVersions, _Mapping]] = ...) -> None: ...

class ContributionHead(_message.Message):
    __slots__ = ("round", "versions_digest", "words_digest", "seed_commitment", "commitments_digest")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WORDS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    COMMITMENTS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    round: int
    versions_digest: bytes
    words_digest: bytes
    seed_commitment: bytes
    commitments_digest: bytes
    def __init__(self, round: _Optional[int] = ..., versions_digest: _Optional[bytes] = ..., words_digest: _Optional[bytes] = ..., seed_commitment: _Optional[bytes] = ..., commitments_digest: _Optional[bytes] = ...) -> None: ...

class Assent(_message.Message):
    __slots__ = ("round", "countries")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    COUNTRIES_FIELD_NUMBER: _ClassVar[int]
    round: int
    countries: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, round: _Optional[int] = ..., countries: _Optional[_Iterable[str]] = ...) -> None: ...

class Answer(_message.Message):
    __slots__ = ("round", "shares", "unopenable", "masks", "compared", "keys")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    UNOPENABLE_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    COMPARED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    round: int
    shares: bytes
    unopenable: _containers.RepeatedScalarFieldContainer[str]
    masks: bytes
    compared: bool
    keys: bytes
    def __init__(self, round: _Optional[int] = ..., shares: _Optional[bytes] = ..., unopenable: _Optional[_Iterable[str]] = ..., masks: _Optional[bytes] = ..., compared: _Optional[bool] = ..., keys: _Optional[bytes] = ...) -> None: ...
