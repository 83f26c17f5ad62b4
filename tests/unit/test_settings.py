"""Settings come from the environment and the command line, and every bad one is named."""

from pathlib import Path

import pytest

from registry.settings import Settings, SettingsInvalid, unknown_names


def load(environ: dict[str, str], **given: object) -> Settings:
    return Settings.load(environ, **given)


def test_the_defaults_are_local_and_need_nothing() -> None:
    settings = load({})
    assert (settings.host, settings.port) == ("127.0.0.1", 11434)
    assert settings.is_loopback
    assert settings.sqlite_path == settings.data / "registry.db"


def test_options_win_over_the_environment_and_none_is_no_option(tmp_path: Path) -> None:
    settings = load(
        {"REGISTRY_PORT": "1", "REGISTRY_HOST": "::1"}, port=2, host=None, data=tmp_path
    )
    assert (settings.host, settings.port, settings.data) == ("::1", 2, tmp_path)


def test_nested_settings_and_lists_are_read() -> None:
    settings = load(
        {
            "REGISTRY_UPSTREAM_ALLOW": "10.0.0.0/8, reg.internal:5000",
            "REGISTRY_RETENTION__GRACE_S": "7",
            "REGISTRY_LIMITS__MANIFEST_BYTES": "99",
            "REGISTRY_EXTERNAL_URL": "https://models.example.com/",
        }
    )
    assert settings.upstream_allow == ("10.0.0.0/8", "reg.internal:5000")
    assert settings.retention.grace_s == 7
    assert settings.limits.manifest_bytes == 99
    assert settings.external_url == "https://models.example.com"


def test_networks_that_cannot_reach_the_store_are_read_and_checked() -> None:
    settings = load({"REGISTRY_REDIRECT__PROXIED": "10.0.0.0/8, 192.168.1.7"})
    assert settings.redirect.proxied == ("10.0.0.0/8", "192.168.1.7")
    with pytest.raises(SettingsInvalid, match=r"PROXIED.*'nowhere' is no address and no network"):
        load({"REGISTRY_REDIRECT__PROXIED": "nowhere"})


@pytest.mark.parametrize(
    ("value", "host", "port"),
    [
        ("1.2.3.4", "1.2.3.4", 11434),
        ("1.2.3.4:99", "1.2.3.4", 99),
        (":99", "127.0.0.1", 99),
        ("http://x", "x", 80),
        ("https://x/path", "x", 443),
        ("[::1]:80", "::1", 80),
        ("'localhost'", "localhost", 11434),
    ],
)
def test_ollama_host_means_the_same(value: str, host: str, port: int) -> None:
    settings = load({"OLLAMA_HOST": value})
    assert (settings.host, settings.port) == (host, port)


def test_ollama_variables_yield_to_ours(tmp_path: Path) -> None:
    theirs = {
        "OLLAMA_HOST": "1.1.1.1:1",
        "OLLAMA_MODELS": str(tmp_path),
        "OLLAMA_ORIGINS": "http://a,http://b",
        "OLLAMA_NOPRUNE": "1",
    }
    settings = load(theirs)
    assert settings.data == tmp_path
    assert settings.origins == ("http://a", "http://b")
    assert not settings.retention.prune
    assert load({**theirs, "REGISTRY_PORT": "5"}).host == "127.0.0.1"


def test_every_bad_value_is_named_at_once() -> None:
    bad = {"REGISTRY_PORT": "x", "REGISTRY_LOG_LEVEL": "loud", "REGISTRY_EXTERNAL_URL": "ftp://x"}
    with pytest.raises(SettingsInvalid) as caught:
        load(bad)
    for key in bad:
        assert key in str(caught.value)


def test_a_storage_that_is_not_supported_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"REGISTRY_STORAGE_URL: .*begin with s3://"):
        load({"REGISTRY_STORAGE_URL": "ftp://bucket"})
    assert load({"REGISTRY_STORAGE_URL": ""}).storage_url == ""


def test_the_keys_of_an_object_store_are_settings_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hidden\n")
    found = load(
        {
            "REGISTRY_STORAGE_URL": "s3://bucket/models",
            "REGISTRY_S3__ACCESS_KEY": "key",
            "REGISTRY_S3__SECRET_KEY_FILE": str(file),
        }
    )
    assert (found.s3.access_key, found.s3.secret_key) == ("key", "hidden")


def test_a_value_may_lie_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("sqlite:///x.db\n")
    assert load({"REGISTRY_DATABASE_URL_FILE": str(file)}).database_url == "sqlite:///x.db"
    with pytest.raises(SettingsInvalid, match="REGISTRY_DATABASE_URL_FILE"):
        load({"REGISTRY_DATABASE_URL_FILE": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("5m", 300.0), ("90", 90.0), ("1h30m", 5400.0), ("0", 0.0), ("-1", None), ("-5m", None)],
)
def test_keep_alive_is_a_duration_or_seconds_and_negative_is_for_ever(
    value: str, seconds: float | None
) -> None:
    assert load({"OLLAMA_KEEP_ALIVE": value}).worker.keep_alive_s == seconds


def test_settings_of_the_real_server_are_read_where_they_mean_the_same() -> None:
    theirs = {
        "OLLAMA_NUM_PARALLEL": "3",
        "OLLAMA_KV_CACHE_TYPE": "q8_0",
        "OLLAMA_FLASH_ATTENTION": "1",
        "OLLAMA_GO_TEMPLATE": "0",
        "OLLAMA_LOAD_TIMEOUT": "10m",
    }
    worker = load(theirs).worker
    assert (worker.parallel, worker.cache_type, worker.load_timeout_s) == (3, "q8_0", 600.0)
    assert (worker.flash_attention, worker.go_template) == ("on", "off")
    assert load({**theirs, "REGISTRY_WORKER__PARALLEL": "2"}).worker.parallel == 2


def test_a_duration_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(SettingsInvalid, match="REGISTRY_WORKER__KEEP_ALIVE"):
        load({"REGISTRY_WORKER__KEEP_ALIVE": "soon"})


def test_names_that_mean_nothing_are_found() -> None:
    environ = {
        "REGISTRY_PROT": "1",
        "REGISTRY_LIMITS__BLOB_BYTE": "1",
        "REGISTRY_PORT": "1",
        "REGISTRY_PORT_FILE": "x",
        "REGISTRY_LIMITS__BLOB_BYTES": "1",
        "REGISTRY_SERVER": "x",
        "OLLAMA_PROT": "1",
    }
    assert unknown_names(environ) == ["REGISTRY_LIMITS__BLOB_BYTE", "REGISTRY_PROT"]


def test_labels_are_words() -> None:
    with pytest.raises(SettingsInvalid, match="REGISTRY_WORKER__LABELS"):
        Settings.load({"REGISTRY_WORKER__LABELS": "two words"})
