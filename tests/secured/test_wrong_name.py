"""A broker that shows a certificate for another name than the one it was asked by, on the secured Mosquitto."""

from tests.secured.secured import SecuredSite


def test_26_a_wrong_name_in_the_brokers_certificate_is_said_in_words(site: SecuredSite) -> None:
    """127.1 is the address 127.0.0.1 in another form, which the certificate does not have."""
    said = site.run("alice", "status", S2M3_HOST="127.1")
    assert said.returncode == 1, said.stdout
    assert "is not who it should be: Hostname mismatch, certificate is not valid for '127.1'; " in said.stderr
    assert "the host is a name in the certificate (s2m3 secure init --host)" in said.stderr
    assert "no MQTT v5 broker answers" not in said.stderr
    assert said.stderr.splitlines()[-1].startswith("s2m3: unauthorised: the broker at 127.1:"), said.stderr
