"""What every governance document shares: its field types, its canonical bytes and its digest.

Signature and digest of a document cover the RFC 8785 JSON of all its fields, defaults included, so
that what is read later can never differ from what was signed.
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
)

from governance.documents.problems import sentences
from governance.documents.purposes import (
    DATA_CATEGORIES,
    DUO_TERMS,
    EHDS_CODES,
    PURPOSE_OF_USE,
    Code,
    require,
)
from governance.errors import DocumentFault
from governance.runtime.safe_text import is_plain
from keys.composite import read_identity
from keys.errors import KeyFault
from keys.identity import VerifyKey
from protocols.wire.document_versions import LARGEST_ROSTER
from protocols.wire.encoding import canonical_json, check_json, digest

MAX_BYTES = 256 * 1024
"""The largest governance document; those of the demo are below 20 kB."""

MOST_CODES, MOST_NAMES = 64, 256
"""Most codes of one table in a list, and most names of persons or things. A list of codes is read
up to the first wrong one: to find the nearest known code takes longer than anything else here."""

EXAMPLE_TIME = "2026-12-31T23:59:59Z"

_ALPHA_2 = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR
BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ
EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW
GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY
KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY
QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG
TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM
ZW
"""
MISTAKEN_CODES = {"UK": "GB", "EL": "GR"}
"""Codes of the European Union that are not those of ISO 3166-1."""
ASSIGNED_COUNTRIES = frozenset(_ALPHA_2.split())
"""ISO 3166-1 alpha-2."""

USER_ASSIGNED = re.compile(r"AA|ZZ|Q[M-Z]|X[A-Z]")
"""Codes that ISO 3166-1 reserves for its users, such as XK."""


def country_code(code: str) -> str:
    """Return the code. Raises ValueError if it is not one of ISO 3166-1 alpha-2."""
    if code in ASSIGNED_COUNTRIES or USER_ASSIGNED.fullmatch(code):
        return code
    hint = f"; did you mean {MISTAKEN_CODES[code]}?" if code in MISTAKEN_CODES else ""
    raise ValueError(f"{code!r} is no country code of ISO 3166-1 (two capitals, such as DK){hint}")


def _plain(text: str) -> str:
    if not is_plain(text) or text != text.strip():
        raise ValueError("must be one line without control or invisible characters")
    return text


def _key(text: str) -> str:
    try:
        return VerifyKey.from_text(text).to_text()
    except KeyFault as fault:
        raise ValueError(fault.sentence) from None


def _identity(text: str) -> str:
    try:
        return read_identity(text).to_text()
    except KeyFault as fault:
        raise ValueError(fault.sentence) from None


def _whole_utc_second(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"must have a time zone, such as {EXAMPLE_TIME}")
    if moment.microsecond:
        raise ValueError("must be a whole second")
    return moment.astimezone(UTC)


def _parsed(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a date such as {EXAMPLE_TIME}, found {value!r}") from None
    bare_date = len(value) == len("2026-12-31")
    return moment.replace(tzinfo=UTC) if bare_date else moment


def _sorted_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("must not name anything twice")
    return tuple(sorted(values))


def _code(table: dict[str, Code], what: str) -> Callable[[str], str]:
    return lambda code: require(table, what, code)


Country = Annotated[str, AfterValidator(country_code)]
"""ISO 3166-1 alpha-2, or a code that the standard reserves for its users."""
Countries = Annotated[
    tuple[Country, ...], Field(max_length=LARGEST_ROSTER), AfterValidator(_sorted_unique)
]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Line = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_plain)]
Sentence = Annotated[str, StringConstraints(min_length=1, max_length=2_000), AfterValidator(_plain)]
PublicKey = Annotated[str, AfterValidator(_key)]
"""`ed25519:<base64>`; see `keys.identity.VerifyKey`."""
IdentityKey = Annotated[str, AfterValidator(_identity)]
"""A key that messages are signed with: `ed25519:<base64>` or `ed25519+mldsa65:<base64>`."""
UtcTime = Annotated[datetime, BeforeValidator(_parsed), AfterValidator(_whole_utc_second)]
"""A whole second in UTC. A date alone means its midnight."""
Ehds = Annotated[str, AfterValidator(_code(EHDS_CODES, "an EHDS Art. 53 or 54 code"))]
PurposeOfUse = Annotated[str, AfterValidator(_code(PURPOSE_OF_USE, "an HL7 PurposeOfUse code"))]
Duo = Annotated[str, AfterValidator(_code(DUO_TERMS, "a DUO term"))]
DataCategory = Annotated[str, AfterValidator(_code(DATA_CATEGORIES, "an EHDS Art. 51 category"))]
DataCategories = Annotated[
    tuple[DataCategory, ...], Field(min_length=1, max_length=MOST_CODES), FailFast()
]
Epsilon = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Delta = Annotated[float, Field(gt=0, lt=1e-2, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=1, le=36_525)]


UNKNOWN_FIELD = "extra_forbidden"
AGAIN = "ask the signer for the document again"
NEWER = (
    "install the version of the program that signed the document, if it is newer than this one; "
    "otherwise ask the signer for the document again"
)


class Part(BaseModel):
    """A frozen part of a document; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, serialize_by_alias=True)


class Document(Part):
    """A signed document: its `canonical()` bytes are stored, hashed and signed."""

    name_in_messages: ClassVar[str]
    most_bytes: ClassVar[int] = MAX_BYTES

    def canonical(self) -> bytes:
        """Return the RFC 8785 JSON of all fields."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """`sha256:<hex>` of the canonical bytes, by which everything refers to the document."""
        return digest(self.canonical())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy, whose digest is computed again."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied

    @classmethod
    def from_canonical(cls, data: bytes) -> Self:
        """Return the document whose canonical bytes these are.

        Raises DocumentFault for all other bytes: each document has exactly one encoding.
        """
        if len(data) > cls.most_bytes:
            raise _not_signed_form(cls, f"it is larger than {cls.most_bytes // 1024} kB")
        try:
            document = cls.model_validate_json(check_json(data), strict=True)
            same = document.canonical() == data
        except ValidationError as error:
            fix = NEWER if any(e["type"] == UNKNOWN_FIELD for e in error.errors()) else AGAIN
            raise _not_signed_form(cls, _first_sentence(cls, error, data), fix) from None
        except ValueError as error:
            raise _not_signed_form(cls, str(error)) from None
        if not same:
            raise _not_signed_form(cls, "its bytes are not in canonical form")
        return document


def _first_sentence(kind: type[Document], error: ValidationError, data: bytes) -> str:
    try:
        values = json.loads(data)
    except ValueError:
        return "it is not JSON"
    return next(sentences(kind, error, values, {}))


def _not_signed_form(kind: type[Document], why: str, fix: str = AGAIN) -> DocumentFault:
    return DocumentFault(f"This is not a signed {kind.name_in_messages}", why=why, fix=fix)
