"""Webhooks as the settings give them: what is refused, and that nothing secret is shown."""

from pathlib import Path

import pytest

from consensus.core.settings import SettingsError, load
from gateway.config import Config, without_secrets
from gateway.events.targets import Place, Webhook, place_of


@pytest.mark.parametrize("url", [
    "ftp://example.com/", "example.com", "http://", "http:///x", "http://user:pass@example.com/", "http://example.com:0/",
    "http://example.com:99999/", "http://example.com/#part", "http://exa mple.com/", "http://example.com/\r\nX: y", "http://ü.com/",
    "file:///etc/passwd", "", "http://a..b/", f"http://{'a' * 64}.example.com/",
])
def test_what_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        Webhook(url=url)


def test_a_url_says_where_to_connect_and_what_to_ask() -> None:
    assert place_of("https://hooks.example.com/in?token=1") == Place(
        True, "hooks.example.com", 443, "hooks.example.com", "/in?token=1")
    assert place_of("http://[::1]:8080") == Place(False, "::1", 8080, "[::1]:8080", "/")


@pytest.mark.parametrize("wrong", [
    {"authorization": "a\r\nX-Other: b"}, {"timeout_seconds": 0}, {"timeout_seconds": 301}, {"connections": 0},
    {"connections": 65},
])
def test_other_fields_are_checked(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Webhook(url="http://example.com", **wrong)  # type: ignore[arg-type]


def loaded(folder: Path, text: str) -> Config:
    file = folder / "staddle.toml"
    file.write_text(text)
    return load(Config, file=file, environ={}, overrides={})


def test_settings_have_them_as_tables_and_show_no_secret(tmp_path: Path) -> None:
    config = loaded(tmp_path, """
        webhook_allow = ["10.0.0.0/8", "hooks.internal"]
        [webhooks.warehouse]
        url = "https://hooks.example.com/t0ken"
        secret = "s3cret"
        authorization = "Bearer t1ken"
        ca = "/etc/ca.pem"
        """)
    assert config.webhooks["warehouse"].ca == Path("/etc/ca.pem")
    assert config.webhooks["warehouse"].address == "https://hooks.example.com/"
    for shown in (repr(config), str(without_secrets(config))):
        for secret in ("t0ken", "s3cret", "t1ken"):
            assert secret not in shown


@pytest.mark.parametrize(("text", "said"), [
    ('webhook_allow = ["10.0.0.1/8"]', "webhook_allow"),
    ('[webhooks."a:b"]\nurl = "http://example.com"', "'a:b' is not"),
    ('[webhooks.a]\nurl = "nowhere"', "http://HOST"),
    ('[webhooks.a]\nurl = "http://example.com"\n[webhooks.b]\nurl = "nowhere"', "entry 'b': 'url' is not"),
    ('[webhooks.a]\nurl = "http://example.com"\nsecrets = "x"', "secrets"),
    ("[webhooks.a]\n", "url is missing"),
    ("event_retention_hours = 0", "event_retention_hours"),
])
def test_what_is_wrong_is_said_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        loaded(tmp_path, text)
