from __future__ import annotations

import pytest

from breakfix.adapters.repairs.addresses import WrongAddress, checked_origin

HOSTS = (".bmc.example", "bmc-7", "10.8.0.0/16", "10.9.9.9:8443", "127.0.0.1:8000", "[fd00::7]:443")


@pytest.mark.parametrize(
    ("address", "origin", "path"),
    [
        pytest.param("bmc-7", "https://bmc-7", "", id="a bare host is https"),
        pytest.param("https://n1.bmc.example/", "https://n1.bmc.example", "", id="a suffix"),
        pytest.param("10.8.3.4", "https://10.8.3.4", "", id="a network"),
        pytest.param("https://10.9.9.9:8443", "https://10.9.9.9:8443", "", id="a named port"),
        pytest.param("https://[fd00::7]", "https://[fd00::7]", "", id="an IPv6 address"),
        pytest.param(
            "http://127.0.0.1:8000/redfish/v1/Systems/n1",
            "http://127.0.0.1:8000",
            "/redfish/v1/Systems/n1",
            id="http to loopback, with a system",
        ),
    ],
)
def test_an_allowed_address_is_taken(address, origin, path):
    assert checked_origin(address, HOSTS) == (origin, path)


@pytest.mark.parametrize(
    "address",
    [
        pytest.param("http://bmc-7", id="http beyond loopback"),
        pytest.param("https://bmc-8", id="a host that nobody allowed"),
        pytest.param("https://bmc.example", id="the suffix itself"),
        pytest.param("https://evilbmc.example", id="a name that only ends alike"),
        pytest.param("https://n1.bmc.example.evil.test", id="a name that begins alike"),
        pytest.param("https://10.80.0.1", id="another network"),
        pytest.param("https://169.254.169.254", id="a cloud's metadata service"),
        pytest.param("https://bmc-7:8443", id="another port"),
        pytest.param("https://10.9.9.9", id="the port that was not allowed"),
        pytest.param("https://root:pw@bmc-7", id="a password"),
        pytest.param("https://bmc-7@evil.test", id="a host dressed as a user"),
        pytest.param("https://bmc-7/redfish/v1?x=1", id="a query"),
        pytest.param("https://bmc-7/redfish/v1/Systems/../Managers", id="a way up"),
        pytest.param("https://bmc-7/%2e%2e", id="an encoded way up"),
        pytest.param("https://bmc-7\\@evil.test", id="a backslash"),
        pytest.param("https://bmc-7/a b", id="a space"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("", id="nothing"),
        pytest.param("https://", id="no host"),
        pytest.param("https://bmc-7:port", id="no port"),
    ],
)
def test_anything_else_is_refused(address):
    with pytest.raises(WrongAddress):
        checked_origin(address, HOSTS)
