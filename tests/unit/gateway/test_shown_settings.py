"""Settings can be shown to people who may not know the secrets in them."""

from gateway.config import Config, without_secrets
from gateway.identities import Identity


def test_no_secret_is_among_the_settings_that_are_shown() -> None:
    someone = Identity(name="n", account="a", user_id="u", access_key="KEY", secret_key="very secret indeed")
    shown = without_secrets(Config(identity=(someone,), metrics_token="very-secret-token-of-metrics"))
    assert "secret indeed" not in str(shown)
    assert "very-secret" not in str(shown)
    assert shown["identity"][0]["access_key"] == "KEY"
    assert shown["chunk_bytes"] == 64 << 20
    assert shown["data"] == ["data"]
