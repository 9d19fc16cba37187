import pytest

from client.records.value_formats import DateFormat, NumberFormat, how_to_read

GERMAN, FRENCH, SWISS = NumberFormat(",", "."), NumberFormat(",", " "), NumberFormat(".", "'")


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (NumberFormat(), "-1.5e2", -150),
        (GERMAN, "1.234.567,5", 1234567.5),
        (GERMAN, "12,5", 12.5),
        (GERMAN, "-1.234", -1234),
        (FRENCH, "1\u00a0234,5", 1234.5),
        (SWISS, "1'234.5", 1234.5),
        (NumberFormat(","), "2,5e3", 2500),
    ],
)
def test_a_number_is_read_in_its_declared_form(form: NumberFormat, text: str, value: float) -> None:
    assert form.parse(text) == value


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (NumberFormat(), "1,5"),
        (NumberFormat(), "1'234"),
        (GERMAN, "1.23"),
        (GERMAN, "1.2345,0"),
        (GERMAN, "1234.567"),
        (GERMAN, "1,234.5"),
        (GERMAN, "1,2,3"),
        (FRENCH, "12 34"),
        (SWISS, "1,5"),
        (NumberFormat(","), "1.5"),
        (NumberFormat(","), ""),
    ],
)
def test_a_number_in_another_form_is_no_number(form: NumberFormat, text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        form.parse(text)


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        ("YYYY-MM-DD", "2000-01-01", 2000.0),
        ("DD.MM.YYYY", "02.07.1990", 1990 + 182 / 365),
        ("MM/DD/YYYY", "12/31/2024", 2024 + 365 / 366),
        ("YYYYMMDD", "19700101", 1970.0),
    ],
)
def test_a_date_is_its_year_with_a_fraction(form: str, text: str, value: float) -> None:
    assert DateFormat(form).parse(text) == value


@pytest.mark.parametrize("text", ["1.2.1990", "01.02.90", "31.02.1990", "01.13.1990", "", "1990"])
def test_another_date_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as DD\.MM\.YYYY"):
        DateFormat("DD.MM.YYYY").parse(text)


@pytest.mark.parametrize("form", ["", "DD.MM.YY", "DD.DD.YYYY", "DD.MM", "%d.%m.%Y", "DD MM  YYYY"])
def test_a_form_names_year_month_and_day_once(form: str) -> None:
    with pytest.raises(ValueError, match="once each"):
        DateFormat(form)


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("2,5", "`decimal: ','`"),
        ("1,234", "`thousands: ','`"),
        ("1.234,5", "`thousands: '.'`"),
        ("1990-01-31", "`date_format`"),
        ("31/01/55", "`date_format`"),
        ("old", ""),
        ("1.5.2", ""),
    ],
)
def test_the_setting_that_would_help_is_named(text: str, setting: str) -> None:
    advice = how_to_read(text)
    assert setting in advice
    assert bool(advice) is bool(setting)
