from client.records.quality_report import ColumnQuality, QualityReport


def test_the_report_counts_rows_opt_outs_and_missing_values() -> None:
    report = QualityReport(
        rows=10,
        opted_out=2,
        unknown_opt_outs=("x", "y"),
        columns=(ColumnQuality("age", 3, below=1, above=0), ColumnQuality("ill", 0)),
    )
    assert report.lines() == (
        "10 patients read, 2 left out because they opted out",
        "2 opted-out ids are not in the data: check them",
        "age: 3 of 8 missing; 1 below and 0 above its bounds (clipped when used)",
        "ill: 0 of 8 missing",
    )


def test_without_unknown_ids_the_report_does_not_mention_them() -> None:
    assert len(QualityReport(1, 0, (), ()).lines()) == 1


def test_one_patient_and_one_unknown_id_are_singular() -> None:
    report = QualityReport(1, 0, ("x",), ())
    assert report.lines()[:2] == (
        "1 patient read, 0 left out because they opted out",
        "1 opted-out id is not in the data: check it",
    )


def test_a_file_without_a_patient_is_a_warning() -> None:
    assert QualityReport(1, 1, (), ()).warning == ""
    assert QualityReport(0, 0, (), ()).warning == "the file has a header and no patient"
    assert QualityReport(0, 0, (), (), header=False).warning == "the file has no patient"
