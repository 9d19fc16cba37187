"""The versions of the signed documents that a party has: in messages, log entries and results."""

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Self

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from protocols.errors import ReasonCode, Refusal
from protocols.proto import round_pb2

LARGEST_ROSTER = 256
COUNTRY_PATTERN = re.compile(r"[A-Z]{2}")
Version = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DocumentVersions:
    """Versions of `root`, of `targets`, and of each country's documents; 0 if there are none."""

    root: Version
    targets: Version
    countries: Mapping[str, Version] = field(default_factory=dict)

    @classmethod
    def from_proto(cls, message: round_pb2.DocumentVersions) -> Self:
        """Return the versions in a message. Raises Refusal MALFORMED if a name is not a country's.

        Names with version 0 are checked too, since every name is forwarded to others.
        """
        countries = dict(message.countries)
        if len(countries) > LARGEST_ROSTER or not all(map(COUNTRY_PATTERN.fullmatch, countries)):
            raise Refusal(
                ReasonCode.MALFORMED,
                "A message claims document versions of something that is not a country",
                why=f"at most {LARGEST_ROSTER} are allowed, each named by two capital letters",
            )
        return cls(message.root, message.targets, countries)

    def to_proto(self) -> round_pb2.DocumentVersions:
        """Return the versions as a part of a message."""
        return round_pb2.DocumentVersions(
            root=self.root, targets=self.targets, countries=self.countries
        )

    def newer_in(self, claimed: Self) -> tuple[str, ...]:
        """Return the names of the documents of which `claimed` has a higher version."""
        pairs = {"root": (self.root, claimed.root), "targets": (self.targets, claimed.targets)}
        for country, version in claimed.countries.items():
            pairs[f"country-{country}"] = (self.countries.get(country, 0), version)
        return tuple(sorted(name for name, (ours, other) in pairs.items() if other > ours))

    def by_name(self) -> dict[str, int]:
        """Return every version: of `root`, of `targets`, and of each country by its code."""
        return {"root": self.root, "targets": self.targets, **dict(sorted(self.countries.items()))}
