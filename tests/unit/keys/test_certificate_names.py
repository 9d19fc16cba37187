import pytest
from cryptography import x509

from keys.certificates import Role, TransportAuthority
from keys.errors import KeyFault
from tests.support.certificates import (
    NOW,
    forged,
    issued,
    seen_by,
    uri,
)

# names that could be read in more than one way

COUNTRIES = [
    "",
    "A",
    "at",
    "AUT",
    "A1",
    "AT\n",
    " AT",
    "AT/node",
    "AT/coordinator#",
    "A/",
    "..",
    "A?",
    "%41",
    "ÄT",
    "ＡＴ",
    "AT\x00",
    "AT,DNS:localhost",
]


@pytest.mark.parametrize("country", COUNTRIES)
def test_a_country_cannot_contain_another_name(authority: TransportAuthority, country: str) -> None:
    with pytest.raises(KeyFault, match="country code"):
        issued(authority, country=country)


@pytest.mark.parametrize(
    "federation",
    ["", "Danube", "a/AT/node", "a b", "a\n", "-a", "a-", "a.b", "é", "a" * 64, "a#", "a\x00"],
)
def test_a_federation_cannot_contain_another_name(federation: str) -> None:
    with pytest.raises(KeyFault, match="name of a federation"):
        TransportAuthority.create(federation, NOW)


@pytest.mark.parametrize("federation", ["a", "danube-2", "a" * 63])
def test_the_longest_and_shortest_federation_names_are_accepted(federation: str) -> None:
    authority = TransportAuthority.create(federation, NOW)
    assert seen_by(authority, issued(authority)).federation == federation


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example.org",
        "a b",
        "localhost\n",
        "good.org\x00.evil.org",
        "a..b",
        ".a",
        "a.",
        "-a.org",
        "a-.org",
        "1.2.3",
        "1.2.3.4.5",
        "999.1.1.1",
        "https://a.org",
        "a.org:443",
        "a/b",
        "bücher.example",
        "\u212a.org",
        "a" * 64 + ".org",
        "a." * 126 + "org",
    ],
)
def test_a_host_is_one_name_or_one_address(authority: TransportAuthority, host: str) -> None:
    with pytest.raises(KeyFault, match="host name or an IP address"):
        issued(authority, role=Role.COORDINATOR, hosts=("localhost", host))


@pytest.mark.parametrize(
    "names",
    [
        None,
        [x509.DNSName("pratique")],
        [x509.DNSName("pratique://danube/AT/node")],
        [uri("pratique://danube/AT/node"), uri("pratique://danube/HU/node")],
        [uri("pratique://danube/AT/node"), uri("https://example.org")],
        [uri("https://danube/AT/node")],
        [uri("PRATIQUE://danube/AT/node")],
        [uri("pratique://danube/AT")],
        [uri("pratique://danube/AT/admin")],
        [uri("pratique://danube/AT/NODE")],
        [uri("pratique://danube/at/node")],
        [uri("pratique://danube/AT/node/")],
        [uri("pratique://danube/AT/node\n")],
        [uri("pratique://danube/AT/node?role=officer")],
        [uri("pratique://danube/HU/AT/node")],
        [uri("pratique:///AT/node")],
        [uri("x pratique://danube/AT/node")],
    ],
)
def test_a_certificate_that_names_nobody_or_two_is_refused(
    authority: TransportAuthority, names: list[x509.GeneralName] | None
) -> None:
    with pytest.raises(KeyFault, match="name one country and role"):
        seen_by(authority, forged(authority, names))


def test_the_forging_helper_can_make_valid_certificates(
    authority: TransportAuthority,
) -> None:
    pem = forged(authority, [uri("pratique://danube/AT/node")])
    assert seen_by(authority, pem).country == "AT"
