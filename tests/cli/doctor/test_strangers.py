"""`liquid-train doctor` at servers that are not what it looks for."""

import pytest
from impostors import drip, garbage, serving, silence, talking, tls

from liquid_train.doctor import web
from liquid_train.doctor.examine import DEFAULTS


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (garbage, "its answer is no HTTP; if it speaks TLS, the URL has to begin with https://"),
        (tls, "its answer is no HTTP; if it speaks TLS, the URL has to begin with https://"),
        (silence, "no answer within 0.3 s"),
        (drip, "no answer within 0.3 s"),
    ],
)
def test_servers_that_are_none_of_these(talk, said, doctor, monkeypatch):
    # A busy machine may take longer than this to hear from those that do answer.
    if talk in (silence, drip):
        monkeypatch.setattr(web, "TIMEOUT", 0.3)
    with talking(talk) as url:
        code, found = doctor(*(word for name in DEFAULTS for word in (f"--{name}", url)))
    assert code == 1
    assert {one["seen"] for (area, _), one in found.items() if area in DEFAULTS} == {f"{url}: {said}"}


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}", b'{"status": "success"}', b"null"])
@pytest.mark.parametrize("status", [200, 500])
def test_servers_that_answer_something_else(status, body, doctor):
    paths = [
        "/api/v1/status/buildinfo",
        "/api/v2/status",
        "/api/health",
    ]
    with serving(dict.fromkeys(paths, (status, body))) as url:
        code, found = doctor(*(word for name in DEFAULTS for word in (f"--{name}", url)))
        assert code == 1
        for area in DEFAULTS:
            one = next(one for (where, _), one in found.items() if where == area)
            assert one["status"] == "problem", area
            assert one["seen"].startswith(url), area
        DEFAULTS.update(dict.fromkeys(DEFAULTS, url))
        code, found = doctor()
    assert code == 0
    told = {one["status"] for (area, check), one in found.items() if area in DEFAULTS and check != "clock"}
    assert told == {"warning"}


def test_tls_where_none_is_spoken(doctor):
    with serving({}) as url:
        secure = url.replace("http:", "https:")
        code, found = doctor("--prometheus", secure)
    assert code == 1
    assert found["prometheus", "address"]["seen"] == (
        f"{secure}: does not speak TLS; the URL may have to begin with http://"
    )
