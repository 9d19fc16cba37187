"""Targets: files that operators, officers and researchers give, and the state of a folder."""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save

from client.errors import RecordFault
from client.home import NodeHome
from client.records.csv_source import CsvSource
from client.records.dictionary import DataDictionary, read_dictionary
from client.records.opt_outs import INVISIBLE, LONGEST_ID, read_opt_outs
from client.records.value_formats import DateFormat, NumberFormat
from client.settings import Enrolment, NodeSettings
from governance.documents.yaml_text import dump_yaml
from governance.officer.home import OfficerHome
from governance.officer.home import Settings as OfficerSettings
from governance.officer.node_link import require_node_of
from governance.runtime.text_layout import broken
from keys.passphrase import PASSPHRASE_LIMIT_BYTES, read_passphrase
from keys.store import HEADER_NAME, KeyStore
from protocols.tasks import CountPatients, Family
from protocols.wire.document_versions import DocumentVersions
from server.commands import result as result_commands
from server.home import CoordinatorHome
from server.home import Settings as CoordinatorSettings
from server.learning.optimiser import OptimiserState
from server.learning.predict import predict_file
from server.learning.release import (
    MODEL_FILE,
    RESULT_FILE,
    Result,
    _weights,
    read_result,
    write_result,
)
from tests.fuzz.target import (
    WIDTH,
    Parse,
    Seeds,
    Target,
    file,
    joined,
    parts,
    require_seen,
    scratch,
)
from tests.support.documents import raw_key
from tests.support.keystore import PASSPHRASE, fast_store
from tests.support.patients import FEATURES, glm

SOURCE, CSV_TEXT = "client/records/csv_source.py", "client/records/csv_text.py"
BEGINNING, DICTIONARIES = "client/records/csv_beginning.py", "client/records/dictionary.py"
FORMATS, READING = "client/records/value_formats.py", "governance/documents/reading.py"
KEY = raw_key(5)
BEGINNING_OF = b"dictionary: 1\ntitle: Patients\npatient: id\n"
SIMPLE = BEGINNING_OF + (
    b"features:\n"
    b"  - {name: age, type: numeric, bounds: [0, 120]}\n"
    b"  - {name: sex, type: categorical, codes: {F: female, M: male}}\n"
)
EUROPEAN = (
    b'dictionary: 1\ntitle: Patienten\npatient: Nummer\ndelimiter: ";"\ndecimal: ","\n'
    b'thousands: "."\nencoding: windows-1252\nskip: 1\nid_case: ignore\nmissing: ["", "-9"]\n'
    b"features:\n"
    b"  - {name: sugar, column: Zucker, type: numeric, bounds: [0, 10000]}\n"
    b"  - {name: born, column: Geburtstag, type: numeric, bounds: [1900, 2030], "
    b"date_format: DD.MM.YYYY}\n"
    b"  - {name: ill, column: krank, type: boolean, true_above: 0}\n"
)
WITHOUT_HEADER = (
    b'dictionary: 1\ntitle: Rows\npatient: row number\nheader: false\ndelimiter: "\\t"\n'
    b"encoding: utf-16\ncolumns: [a, b]\nfeatures:\n"
    b"  - {name: a, type: numeric, bounds: [0, 9]}\n"
    b"  - {name: b, type: boolean, true_for: [yes], missing: ['?']}\n"
)
RECORDS: Mapping[str, tuple[bytes, tuple[bytes, ...]]] = {
    "records": (
        SIMPLE,
        (
            b"id,age,sex\np1,40,F\np2,,M\n",
            b'\xef\xbb\xbfid,note,age,sex\r\n"p,1","a ""b""\nc",40.5,F\r\np2,,1e1,M\r\n,,,\r\n',
            b"sep=,\nage,sex,id\n1,F,007\n2,M,7\n",
        ),
    ),
    "records with a decimal comma": (
        EUROPEAN,
        (
            (
                b"Bericht\nNummer;Zucker;Geburtstag;krank;x\nA1;1.234,5;01.02.1990;0;\xe4\n"
                b"B2;-9;29.02.2000;1,5;\n"
            ),
        ),
    ),
    "records without a header": (
        WITHOUT_HEADER,
        ("\ufeff1\tyes\n2.5\t?\n".encode("utf-16-le"), "1\tyes\r\n".encode("utf-16")),
    ),
}


def _dictionary(data: bytes) -> None:
    """Read a dictionary: it means the same when it is written again, and can be used."""
    read_bytes = file(read_dictionary, "dictionary.yaml")
    dictionary: DataDictionary = read_bytes(data)  # type: ignore[assignment]
    again = dictionary.model_dump(mode="json", exclude_none=True)
    assert DataDictionary.model_validate(again).digest() == dictionary.digest()
    dictionary.recorded()
    for entry in dictionary.features:
        for typed in ("", "1", "1,5", *entry.codes):
            try:
                assert not math.isinf(dictionary.value(entry, typed))
            except ValueError:
                continue


@cache
def _known(dictionary: bytes) -> DataDictionary:
    path = scratch() / "dictionary.yaml"
    path.write_bytes(dictionary)
    return read_dictionary(path)


def _records(dictionary: bytes, data: bytes) -> None:
    """Read records: every row is a patient who is on the row's line, and every value is finite."""
    known, path = _known(dictionary), scratch() / "records.csv"
    path.write_bytes(data)
    records = CsvSource(path, known).read(frozenset({"p2"}))
    for column in records.columns.values():
        assert len(column) == len(records.ids)
        assert not np.isinf(column).any()
    assert len(set(known.id_keys(records.ids))) == len(records.ids)
    require_seen(*records.ids)
    if dictionary is SIMPLE:
        _require_same_patients(data, records.ids)


def _require_same_patients(data: bytes, ids: tuple[str, ...]) -> None:
    """Compare with what Python's own reader finds in a plain file."""
    if data.startswith(b"sep="):
        return
    plain = data.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")
    plain = plain if "\n" in plain else plain.replace("\r", "\n")
    header, *rows = csv.reader(io.StringIO(plain, newline="\n"), strict=True)
    place = [unicodedata.normalize("NFC", name) for name in header].index("id")
    expected = [row[place].strip() for row in rows if any(field.strip() for field in row)]
    assert list(ids) == [patient for patient in expected if patient != "p2"]


def _dictionary_and_records(dictionary: bytes, data: bytes) -> None:
    """Read records with a dictionary of the operator: both may be wrong."""
    known = file(read_dictionary, "other.yaml")(dictionary)
    path = scratch() / "records.csv"
    path.write_bytes(data)
    assert isinstance(known, DataDictionary)
    records = CsvSource(path, known).read()
    assert all(len(column) == len(records.ids) for column in records.columns.values())


def _opt_outs(path: Path) -> None:
    """Read opt-outs: each id is one that somebody sees, without blanks around it."""
    for patient, line in read_opt_outs(path).items():
        assert 0 < len(patient) <= LONGEST_ID
        assert patient == patient.strip()
        assert not any(unicodedata.category(sign) in INVISIBLE for sign in patient)
        assert line >= 1


def _number(typed: bytes, decimal: bytes, thousands: bytes) -> None:
    """Read a number: whatever is declared, it is a finite one."""
    signs = [each.decode(errors="ignore") for each in (decimal, thousands)]
    written = NumberFormat(
        "," if signs[0] == "," else ".", signs[1] if signs[1] in (".", ",", " ", "'") else None
    )
    try:
        value = written.parse(typed.decode(errors="replace"))
    except ValueError as error:
        raise RecordFault("It is no number", why=str(error)) from None
    assert math.isfinite(value)


def _date(form: bytes, typed: bytes) -> None:
    try:
        year = DateFormat(form.decode(errors="replace")).parse(typed.decode(errors="replace"))
    except ValueError as error:
        raise RecordFault("It is no date", why=str(error)) from None
    assert 0 < year < 10_000


WEIGHTS = {Family.LOGISTIC: 7, Family.LINEAR: 7, Family.MULTINOMIAL: 21}


def _predictions(family: Family, path: Path) -> None:
    """Score rows: one line for each row that is not empty, and every figure is finite."""
    weights = np.linspace(-1, 1, WEIGHTS[family])
    predicted = predict_file(glm(family), FEATURES, weights, path)
    require_seen(*(line for note in predicted.notes for line in broken(note, WIDTH)))
    for row in predicted.rows:
        assert len(row) == len(predicted.header)
        figures = row[1:] if family is Family.MULTINOMIAL else row
        assert all(figure == "" or math.isfinite(float(figure)) for figure in figures)


ROWS = (
    b"name,age,sex,smoker,sugar\nAnna,60,female,true,200\nBo,40,male,?,\n",
    b'\xef\xbb\xbfsugar,x,smoker,sex,age\r\n200,"a\r\n""b""",true,female,60\r\n,,no,male,5e1\r\n',
)


def _result_fields(**changes: object) -> Result:
    fields: dict[str, object] = {
        "study_id": "heart",
        "study": "sha256:" + "a" * 64,
        "agreement": "sha256:" + "b" * 64,
        "run": "c" * 32,
        "title": "Heart disease",
        "purpose": "Research",
        "recipients": ("Regional institute",),
        "countries": ("DK", "EE", "NO"),
        "rounds_opened": {3: 9, 2: 1},
        "left_out": {"NO": 1},
        "roster_size": 3,
        "honest": 2,
        "colluding": 1,
        "epsilon": 0.998,
        "delta": 1e-4,
        "cohort_count": {"epsilon": 1.0, "delta": 1e-5},
        "task": glm(),
        "features": FEATURES,
        "coordinates": glm().coordinate_names(FEATURES),
        "documents": DocumentVersions(root=1, targets=2, countries={"DK": 3}),
        "released": "2026-09-01T12:00:00Z",
        "keep_until": "2027-09-01T12:00:00Z",
        "signer": KEY.public.to_text(),
    }
    return Result.model_validate(fields | changes)


@cache
def _signed_results() -> Seeds:
    interval = {"value": 0.8, "low": 0.7, "high": 0.9}
    group = {"group": "all", "patients": interval, "auc": interval, "accuracy": None}
    evaluation = {"everybody": group, "subgroups": [{**group, "group": "sex=female"}]}
    shown = {"labels": ["female"], "count": 4, "low": 1, "high": 7, "suppressed": False}
    absent: dict[str, object] = {
        "labels": [],
        "count": None,
        "low": None,
        "high": None,
        "suppressed": True,
    }
    counted = {
        "task": CountPatients(patients_bound=10),
        "table": {"groupings": ["sex"], "cells": [shown, absent]},
        "coordinates": (),
    }
    folder = scratch() / "written"
    signed = (
        write_result(folder, _result_fields(**each), KEY.sign)
        for each in ({"evaluation": evaluation}, counted)
    )
    return tuple(
        json.dumps(each.model_dump(mode="json"), ensure_ascii=False).encode() for each in signed
    )


def _result(data: bytes) -> None:
    """Read a result: one that is accepted was signed, and can be shown."""
    folder = _result_folder(data)
    shown = read_result(folder, (KEY.public,))
    assert shown.signing_hash() in {
        Result.model_validate_json(s).signing_hash() for s in _signed_results()
    }
    _show(shown)


def _signed_result(data: bytes) -> None:
    """Read a result that the coordinator signed, whatever is in it: it can be shown, or is refused.

    A signature says who wrote the result, and not that its figures are figures.
    """
    try:
        written = json.loads(data)
        written["signer"], written["signature"] = KEY.public.to_text(), ""
        parsed = Result.model_validate(written)
    except (ValueError, TypeError, KeyError, RecursionError):
        _result_folder(data)
        read_result(scratch() / "result", (KEY.public,))
        return
    signed = {**written, "signature": KEY.sign(parsed.signing_hash()).hex()}
    _show(read_result(_result_folder(json.dumps(signed).encode()), (KEY.public,)))


def _result_folder(data: bytes) -> Path:
    folder = scratch() / "result"
    folder.mkdir(exist_ok=True)
    (folder / RESULT_FILE).write_bytes(data)
    return folder


def _show(shown: Result) -> None:
    """Print a result as `result show` does; each line has characters that a reader sees."""
    lines: list[str] = []
    with patch.object(result_commands, "say", lambda line: lines.extend(broken(line, WIDTH))):
        result_commands._print(shown)
    require_seen(*lines)


def _model(data: bytes) -> None:
    """Read a model's file: it has the parts of the study's model, and no other."""
    weights = _weights(data, glm().tensors(FEATURES), scratch())
    assert weights.shape == (7,)


def _models() -> Seeds:
    folder = scratch() / "model"
    write_result(folder, _result_fields(), KEY.sign, np.linspace(-1, 1, 7))
    return (folder / MODEL_FILE).read_bytes(), save({"weights": np.zeros(3)})


def _optimiser(data: bytes) -> None:
    state = OptimiserState.from_bytes(data)
    assert state.to_bytes() == data


def _settings_file(name: str, read: Callable[[Path], object]) -> Parse:
    """Read the settings of a folder, which only its owner may enter."""

    def parse(data: bytes) -> None:
        folder = scratch() / "home"
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).write_bytes(data)
        read(folder)

    return parse


def _passphrase(path: Path) -> None:
    passphrase = read_passphrase(file=path, fd=None, prompt=None, purpose="the key store")
    assert 0 < len(passphrase) <= PASSPHRASE_LIMIT_BYTES


@cache
def _store() -> Path:
    fast_store(scratch() / "keys").put("document-key", b"secret")
    return scratch() / "keys"


def _key_store(name: str) -> Parse:
    """Read a file of the key store: what is returned is what was stored under this name."""

    def parse(data: bytes) -> None:
        path = _store() / name
        whole = path.read_bytes()
        if name == HEADER_NAME and data[len(b"pratique/keystore/v1") :][:1] > b"\x0c":
            return  # a header of a higher cost is read, and needs up to a gigabyte
        try:
            path.write_bytes(data)
            assert KeyStore.open(_store(), PASSPHRASE).get("document-key") == b"secret"
            assert data == whole
        finally:
            path.write_bytes(whole)

    return parse


def _settings_seeds(kind: str) -> Seeds:
    key = KEY.public.to_text()
    node = NodeSettings(
        country="DK",
        data=Path("/srv/records.csv"),
        dictionary=Path("/srv/dictionary.yaml"),
        officer_key=key,
        observe="127.0.0.1:9100",
        enrolment=Enrolment(
            federation="danube",
            exchange="exchange.example.org:7443",
            authority_digest="sha256:" + "a" * 64,
            root_digest="sha256:" + "b" * 64,
        ),
    )
    exchange = CoordinatorSettings(
        federation="danube", listen="0.0.0.0:7443", address="[2001:db8::1]:7443"
    )
    officer = OfficerSettings(country="DK", authority="Authority of DK", document_key=key)
    chosen = {"node": node, "coordinator": exchange, "officer": officer}[kind]
    return (dump_yaml(chosen.model_dump(mode="json", exclude_none=True)),)


def _record_targets() -> Iterator[tuple[str, Target]]:
    for name, (dictionary, files) in RECORDS.items():
        modules = (SOURCE, CSV_TEXT, BEGINNING, FORMATS)
        yield name, Target(partial(_records, dictionary), files, modules)


FILE_TARGETS: dict[str, Target] = {
    "data dictionary": Target(
        _dictionary, (SIMPLE, EUROPEAN, WITHOUT_HEADER), (DICTIONARIES, READING)
    ),
    **dict(_record_targets()),
    "dictionary and records": Target(
        parts(_dictionary_and_records, 2),
        tuple(joined(dictionary, files[0]) for dictionary, files in RECORDS.values()),
        (DICTIONARIES, SOURCE),
    ),
    "opt-out list": Target(
        file(_opt_outs),
        (b"p1\np2 # by letter\n", b'# list\r\n"a#1"\r\n"say ""no"""\r\n\r\n007\r\n'),
        ("client/records/opt_outs.py", "governance/runtime/text_files.py"),
    ),
    "number in a file": Target(
        parts(_number, 3), (joined(b"1.234,5", b",", b"."), joined(b"-1e3", b".")), (FORMATS,)
    ),
    "date in a file": Target(parts(_date, 2), (joined(b"DD.MM.YYYY", b"29.02.2000"),), (FORMATS,)),
    **{
        f"rows to predict, {family.value}": Target(
            file(partial(_predictions, family)),
            ROWS,
            ("server/learning/predict.py", "protocols/tasks/features.py"),
        )
        for family in Family
    },
    "result": Target(_result, _signed_results, ("server/learning/release.py",)),
    "signed result": Target(
        _signed_result,
        _signed_results,
        ("server/learning/release.py", "server/learning/figures_format.py"),
    ),
    "model of a result": Target(_model, _models, ("server/learning/release.py",)),
    "state of the optimiser": Target(
        _optimiser,
        lambda: (OptimiserState.start(np.zeros(2)).to_bytes(),),
        ("server/learning/optimiser.py",),
    ),
    "node.yaml": Target(
        _settings_file("node.yaml", lambda folder: NodeHome(folder).settings()),
        partial(_settings_seeds, "node"),
        (READING, "client/home.py", "governance/runtime/loopback.py"),
    ),
    "node.yaml, for the officer": Target(
        _settings_file("node.yaml", lambda folder: require_node_of(folder, "DK")),
        partial(_settings_seeds, "node"),
        ("governance/officer/node_link.py",),
    ),
    "coordinator.yaml": Target(
        _settings_file("coordinator.yaml", lambda folder: CoordinatorHome(folder).settings()),
        partial(_settings_seeds, "coordinator"),
        (READING, "server/home.py"),
    ),
    "officer.yaml": Target(
        _settings_file("officer.yaml", lambda folder: OfficerHome(folder).settings()),
        partial(_settings_seeds, "officer"),
        (READING, "governance/officer/home.py"),
    ),
    "passphrase file": Target(file(_passphrase), (b"four words\n",), ("keys/passphrase.py",)),
    "header of a key store": Target(
        _key_store(HEADER_NAME),
        lambda: ((_store() / HEADER_NAME).read_bytes(),),
        ("keys/store.py",),
    ),
    "secret of a key store": Target(
        _key_store("document-key.sealed"),
        lambda: ((_store() / "document-key.sealed").read_bytes(),),
        ("keys/store.py", "keys/sealing.py"),
    ),
}
