"""Plant values, and search bytes for them: as text, as numbers, packed and unpacked.

Only byte strings (needles) are searched for that cannot occur by chance: at least eight of their
bytes are neither 0 nor 255. With 10^5 needles and 10^8 bytes the chance of a false alarm is below
10^-6.
"""

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import protocols.numerics.rounding
from protocols.numerics.mechanism import CHECK_COORDINATES
from protocols.numerics.noise import NoiseSource
from protocols.numerics.packing import pack
from protocols.private_sum.country_run import CountryRun
from protocols.tasks.features import Feature, FeatureKind

TELLING = 8
WORD = 8
WHOLE = ("<i8", ">i8", "<i4", ">i4")
REAL = ("<f8", ">f8", "<f4", ">f4")


@dataclass
class Canaries:
    """The needles that must not be found, with their names."""

    needles: dict[int, list[tuple[int, bytes, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """By eight bytes of a needle: their position in it, the needle, its name."""

    def text(self, name: str, value: str) -> None:
        """Plant a text: as it is, in UTF-16, in JSON, in hexadecimal and in base64."""
        plain = value.encode()
        encodings = {plain, value.encode("utf-16-le"), json.dumps(value)[1:-1].encode()}
        for needle in {*encodings, plain.hex().encode(), *_in_base64(plain)}:
            self._plant(needle, name)

    def plant_vector(self, name: str, vector: NDArray[Any]) -> None:
        """Plant integers: as 32- and 64-bit numbers of both byte orders, and as real numbers."""
        for kind in (*WHOLE, *REAL):
            self._add(f"{name} as {kind}", vector, kind)

    def real(self, name: str, vector: NDArray[np.float64]) -> None:
        """Plant real numbers, of both sizes and byte orders."""
        for kind in REAL:
            self._add(f"{name} as {kind}", vector, kind)

    def plant_words(self, name: str, vector: NDArray[np.uint64]) -> None:
        """Plant 64-bit words in both byte orders."""
        for kind in ("<u8", ">u8"):
            self._add(f"{name} as {kind}", vector, kind)

    def _add(self, name: str, vector: NDArray[Any], kind: str) -> None:
        with np.errstate(all="ignore"):
            data, size = vector.ravel().astype(kind).tobytes(), np.dtype(kind).itemsize
        for needle in _needles(data, size):
            self._plant(needle, name)

    def _plant(self, needle: bytes, name: str) -> None:
        offset = _most_telling(needle)
        anchor = int.from_bytes(needle[offset : offset + WORD], "little")
        self.needles[anchor].append((offset, needle, name))

    def found_in(self, data: bytes) -> list[str]:
        """Return the names of all needles that are in `data`."""
        names: set[str] = set()
        anchors = np.sort(np.fromiter(self.needles, np.uint64, len(self.needles)))
        for start in range(min(WORD, len(data))):
            words = np.frombuffer(data, "<u8", (len(data) - start) // WORD, start)
            near = np.minimum(np.searchsorted(anchors, words), len(anchors) - 1)
            for index in np.flatnonzero(anchors[near] == words):
                names |= set(self._at(data, start + WORD * int(index), int(words[index])))
        return sorted(names)

    def _at(self, data: bytes, position: int, anchor: int) -> Iterator[str]:
        for offset, needle, name in self.needles[anchor]:
            begin = position - offset
            if begin >= 0 and data[begin : begin + len(needle)] == needle:
                yield name


def _in_base64(plain: bytes) -> Iterator[bytes]:
    """Yield the parts of a text's base64 form that do not depend on what is before or after it."""
    for before in range(3):
        coded = base64.b64encode(bytes(before) + plain)
        yield coded[-(-before * 4 // 3) + (before > 0) : -4]


def _needles(data: bytes, size: int) -> Iterator[bytes]:
    """Yield, from each number on, the shortest needle that cannot occur by chance."""
    telling = _telling_before(data)
    starts = np.arange(0, len(data), size)
    enough = np.searchsorted(telling, telling[starts] + TELLING)
    ends = np.maximum(-(-enough // size) * size, starts + WORD)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        if end <= len(data):
            yield data[start:end]


def _telling_before(data: bytes) -> NDArray[np.int64]:
    """Return how many bytes before each position, and before the end, are neither 0 nor 255."""
    telling = ~np.isin(np.frombuffer(data, np.uint8), (0, 255))
    return np.concatenate([[0], np.cumsum(telling)])


def _most_telling(needle: bytes) -> int:
    telling = _telling_before(needle)
    return int(np.argmax(telling[WORD:] - telling[:-WORD]))


@dataclass
class Listener:
    """Plants everything that is computed from records on its way to the border."""

    canaries: Canaries
    heard: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def listen(self, patch: pytest.MonkeyPatch) -> None:
        """Record rounding and contributions of every country in this process."""
        rounded, contributed = protocols.numerics.rounding.round_each, CountryRun.contribute

        def rounding(vectors: Any, mechanism: Any, **more: Any) -> Any:
            integers = rounded(vectors, mechanism, **more)
            self.heard["patients"] += len(vectors)
            self.canaries.real(f"a patient's vector in {mechanism.phase}", vectors)
            self.canaries.plant_vector(f"a patient's integers in {mechanism.phase}", integers)
            return integers

        def contributing(run: CountryRun, frame: bytes, values: Any, noise: Any) -> bytes:
            terms = run.admit(frame)
            self.heard["contributions"] += 1
            for name, vector in (
                ("a country's sum", values),
                ("a country's noise", noise),
                ("a country's noisy sum", values + noise),
            ):
                self.canaries.plant_vector(name, vector)
                packed = pack(vector, terms.lane_bits, vector.size + CHECK_COORDINATES)
                self.canaries.plant_words(f"{name}, packed", packed)
            return contributed(run, frame, values, noise)

        patch.setattr(protocols.numerics.rounding, "round_each", rounding)
        patch.setattr(CountryRun, "contribute", contributing)


@dataclass
class OverheardNoise:
    """A noise source whose every vector is planted."""

    inner: NoiseSource
    canaries: Canaries
    drawn: int = 0

    def draw(self, std: int, size: int) -> NDArray[np.int64]:
        """Return the source's noise, and plant it."""
        noise = self.inner.draw(std, size)
        self.drawn += 1
        self.canaries.plant_vector("noise", noise)
        return noise


# Records with values that occur nowhere else.

PATIENTS = 160
"""In each country: far enough above the smallest cohort, 50, for any noise of these tests."""
AGE = Feature(name="age", type=FeatureKind.NUMERIC, bounds=(0, 120))
SURNAMES = ("Żółkiewska", "O'Canarý", "Ñandú-Vögel", "Κανάριος")


def planted_records(country: str, patients: int = PATIENTS) -> str:
    """Return a CSV whose every patient has a name, an id and an age that nobody else has."""
    lines = ["id,name,age,sex,disease"]
    for number, age in enumerate(ages(country, patients)):
        ill = int(number % 4 == 0)
        lines.append(
            f"{id_of(country, number)},{name_of(country, number)},{age!r},{'MF'[number % 2]},{ill}"
        )
    return "\n".join(lines) + "\n"


def ages(country: str, patients: int = PATIENTS) -> list[float]:
    """Return ages with many digits, all of them forty or older."""
    draw = np.random.default_rng(list(country.encode()))
    return [round(float(age), 9) for age in draw.uniform(41, 95, patients)]


def id_of(country: str, number: int) -> str:
    """Return a patient's id."""
    return f"canary-{country}-{number * 7919 + 10_007}"


def name_of(country: str, number: int) -> str:
    """Return a patient's name."""
    return f"{SURNAMES[number % len(SURNAMES)]} {country} {number * 104_729 + 1_299_709}"


def plant(canaries: Canaries, countries: Iterable[str], patients: int = PATIENTS) -> None:
    """Plant all values in the records of these countries."""
    for country in countries:
        years = ages(country, patients)
        canaries.real(f"an age of {country}", np.array(years))
        canaries.real(f"an encoded age of {country}", AGE.scaled(np.array(years)))
        for number, age in enumerate(years):
            canaries.text(f"an age of {country}", repr(age))
            canaries.text(f"a patient of {country}", id_of(country, number))
            canaries.text(f"a name of {country}", name_of(country, number))
