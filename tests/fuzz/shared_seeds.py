"""More inputs to begin from: files that lie beside the project in ../shared, or not at all."""

from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.target import Seeds, joined

SHARED = Path(__file__).parents[3] / "shared"
FILES = {
    "data dictionary": "cases/files/*/dictionary.yaml",
    "YAML": "cases/files/*/dictionary.yaml",
    "records": "cases/files/*/data.csv",
    "records with a decimal comma": "cases/files/*/data.csv",
    "records without a header": "cases/files/*/data.csv",
    "opt-out list": "cases/files/*/opted-out.txt",
    "rows to predict, logistic": "cases/files/predict-*/input.csv",
    "rows to predict, linear": "cases/files/predict-*/input.csv",
    "rows to predict, multinomial": "cases/files/predict-*/input.csv",
    "JSON of another party": "vectors/c2sp-notes/*.json",
}
"""Which files are inputs of a target, by its name."""


def shared_seeds(target: str) -> Seeds:
    """Return the files that are inputs of this target; none if they are not there."""
    if target == "dictionary and records":
        return tuple(_cases())
    pattern = FILES.get(target)
    return tuple(file.read_bytes() for file in sorted(SHARED.glob(pattern))) if pattern else ()


def _cases() -> Iterator[bytes]:
    for dictionary in sorted(SHARED.glob("cases/files/*/dictionary.yaml")):
        records = dictionary.with_name("data.csv")
        if records.exists():
            yield joined(dictionary.read_bytes(), records.read_bytes())
