import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from shared.settings import InvalidSettings, Settings, load_settings, variable_name

# What a number of each name's ending counts.
UNITS: tuple[str, ...] = (
    "_bytes",
    "_seconds",
    "_pixels",
    "_rows",
    "_threads",
    "_attempts",
    "_cosine",
    "_images",
    "_snapshots",
)
UNITS += ("_per_minute", "_searches", "_jobs", "_messages", "_proxies")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

FIELDS = list(Settings.model_fields.items())


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Away from the repository, whose folder may hold a developer's .env."""
    monkeypatch.chdir(tmp_path)


def test_everything_has_a_default() -> None:
    settings = load_settings()
    assert settings.model_fields_set == set()
    assert settings.job_ttl_seconds == 86_400


def test_variables_and_dotenv_are_read_and_variables_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = ["REDIS_URL=redis://from-file:6379/1", "LOOKALIKE_LOG_LEVEL=ERROR", "LOOKALIKE_JOB_TTL_SECONDS=2000"]
    (tmp_path / ".env").write_text("\n".join(lines))
    monkeypatch.setenv("LOOKALIKE_LOG_LEVEL", "DEBUG")
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/lookalike")
    settings = load_settings()
    assert (settings.redis_url, settings.database_url) == ("redis://from-file:6379/1", "postgresql://db/lookalike")
    assert (settings.log_level, settings.job_ttl_seconds) == ("DEBUG", 2000)


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.setenv(variable_name(field), "")
    settings = load_settings()
    assert settings.import_root is None, "an import root of '' would be the working folder"
    assert settings.webhook_secret is None, "an empty secret would sign callbacks with nothing"
    assert settings.model_fields_set == set()


def test_all_bad_values_are_reported_together_with_name_and_value(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "REDIS_URL": "http://somewhere",
        "LOOKALIKE_JOB_TTL_SECONDS": "a day",
        "LOOKALIKE_SIMILAR_MIN_COSINE": "1.5",
        "LOOKALIKE_ENCODER": "resnet9000",
        "LOOKALIKE_ALLOW_PRIVATE_URLS": "perhaps",
    }
    for name, value in bad.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOOKALIKE_LOG_LEVEL", "INFO")
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    first, *lines = str(refusal.value).splitlines()
    assert first == "These settings can't be used:"
    reported = [re.fullmatch(r"  (\w+) = '(.*)': \S.*", line) for line in lines]
    assert {match[1]: match[2] for match in reported if match} == bad


def test_bad_settings_end_the_process_with_the_message_alone() -> None:
    assert issubclass(InvalidSettings, SystemExit)
    assert InvalidSettings("text").code == "text"


@pytest.mark.parametrize("secret", ["whsec_not!base64", "hunter2", "whsec_YWJjZGVm", SECRET.removeprefix("whsec_")])
def test_a_secret_that_cannot_sign_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET", secret)
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    assert "LOOKALIKE_WEBHOOK_SECRET = (hidden): it must be" in str(refusal.value)
    assert secret not in str(refusal.value)
    assert secret.removeprefix("whsec_") not in str(refusal.value)


def test_a_good_secret_is_never_shown_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("LOOKALIKE_JOB_TTL_SECONDS", "0")
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    monkeypatch.delenv("LOOKALIKE_JOB_TTL_SECONDS")
    settings = load_settings()
    assert isinstance(settings.webhook_secret, SecretStr)
    assert settings.webhook_secret.get_secret_value() == SECRET
    for text in (str(refusal.value), repr(settings), str(settings), settings.model_dump_json()):
        assert SECRET not in text
        assert SECRET.removeprefix("whsec_") not in text


@pytest.mark.parametrize(
    ("bad", "shown"),
    [
        ("redis//:hunter2@cache:6379/0", "***@cache:6379/0"),
        ("http://:hunter2@cache:6379/0", "http://***@cache:6379/0"),
        ("postgres:shop:hunter2@db/shop", "***@db/shop"),
        ("mysql://shop:hun@hunter2@db/shop", "mysql://***@db/shop"),
        ("mysql://db/shop?user=shop&password=hunter2&ssl=1", "mysql://db/shop?user=shop&password=***&ssl=1"),
        ("hunter2@db", "***@db"),
    ],
)
@pytest.mark.parametrize("name", ["REDIS_URL", "DATABASE_URL"])
def test_the_password_of_a_bad_address_is_never_shown(
    monkeypatch: pytest.MonkeyPatch, name: str, bad: str, shown: str
) -> None:
    monkeypatch.setenv(name, bad)
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    assert f"  {name} = {shown!r}: " in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["http://host:19530", "https://host/shop", "var/milvus.db", "/data/milvus.db"])
def test_an_index_may_be_in_a_server_or_a_file_of_milvus(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LOOKALIKE_INDEX_URL", url)
    assert load_settings().index_url == url


@pytest.mark.parametrize("url", ["host:19530", "ftp://host/a.db", "milvus.sqlite", "http://"])
def test_what_is_neither_is_refused(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("LOOKALIKE_INDEX_URL", url)
    with pytest.raises(InvalidSettings, match="LOOKALIKE_INDEX_URL"):
        load_settings()


def test_origins_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().origins == frozenset()
    monkeypatch.setenv("LOOKALIKE_ALLOWED_ORIGINS", "https://shop.example, http://localhost:3000,http://[::1]:80,")
    assert load_settings().origins == {"https://shop.example", "http://localhost:3000", "http://[::1]:80"}


@pytest.mark.parametrize(
    "origins",
    ["*", "null", "shop.example", "https://shop.example/", "https://*.shop.example", "https://Shop.example", "a, b"],
)
def test_what_no_browser_sends_as_an_origin_is_refused(monkeypatch: pytest.MonkeyPatch, origins: str) -> None:
    monkeypatch.setenv("LOOKALIKE_ALLOWED_ORIGINS", f"https://shop.example,{origins}")
    with pytest.raises(InvalidSettings, match=r"LOOKALIKE_ALLOWED_ORIGINS = .*is no origin such as"):
        load_settings()


@pytest.mark.parametrize(
    "values",
    [
        {"FETCH_TIMEOUT_SECONDS": "100", "SEARCH_DEADLINE_SECONDS": "100"},
        {"JOB_LEASE_SECONDS": "121", "SEARCH_DEADLINE_SECONDS": "120"},
        {"SEARCH_DEADLINE_SECONDS": "7200", "JOB_TTL_SECONDS": "3600"},
        {"JOB_LEASE_SECONDS": "15", "JOB_STEP_MAX_SECONDS": "15"},
        {"FETCH_TIMEOUT_SECONDS": "30", "JOB_STEP_MAX_SECONDS": "20"},
        {
            "WEBHOOK_MAX_ATTEMPTS": "20",
            "WEBHOOK_BACKOFF_SECONDS": "3600",
            "WEBHOOK_TIMEOUT_SECONDS": "10",
            "JOB_TTL_SECONDS": "68599",
        },
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_all_names_and_values(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str]
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", value)
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    first, *lines = str(refusal.value).splitlines()
    assert first == "These settings contradict each other:"
    assert len(lines) == 1
    for name, value in values.items():
        assert f"LOOKALIKE_{name} = {value}" in lines[0]


def test_settings_that_just_hold_together_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_JOB_LEASE_SECONDS", "119")
    monkeypatch.setenv("LOOKALIKE_FETCH_TIMEOUT_SECONDS", "119.9")
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_MAX_ATTEMPTS", "20")
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_BACKOFF_SECONDS", "3600")
    monkeypatch.setenv("LOOKALIKE_JOB_TTL_SECONDS", "68600")  # 19 pauses of an hour, 20 tries of 10 s
    assert load_settings().job_ttl_seconds == 68_600


def test_a_previous_secret_without_a_present_one_is_refused_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_WEBHOOK_SECRET_PREVIOUS", SECRET)
    with pytest.raises(InvalidSettings) as refusal:
        load_settings()
    assert "LOOKALIKE_WEBHOOK_SECRET_PREVIOUS and LOOKALIKE_WEBHOOK_SECRET: the first is set" in str(refusal.value)
    assert SECRET.removeprefix("whsec_") not in str(refusal.value)


def test_settings_are_frozen() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError):
        settings.log_level = "DEBUG"  # type: ignore[misc]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_each_setting_is_described_in_a_sentence(name: str, field: FieldInfo) -> None:
    assert field.description, name
    assert field.description.strip() == field.description
    assert field.description.endswith("."), field.description


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_each_number_has_its_unit_in_its_name(name: str, field: FieldInfo) -> None:
    kinds = {field.annotation, *get_args(field.annotation)}
    is_number = bool(kinds & {int, float})
    assert name.endswith(UNITS) == is_number, f"{name}: {field.annotation}"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_each_secret_has_a_name_and_a_type_that_hide_it(name: str, field: FieldInfo) -> None:
    is_secret = SecretStr.__name__ in str(field.annotation)
    assert is_secret == any(word in name for word in ("secret", "password", "token", "key")), name


def test_each_variable_name_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, field in Settings.model_fields.items():
        with monkeypatch.context() as context:
            unset = "1" if float in get_args(field.annotation) else "a/path.db"
            unset = "https://shop.example" if "origins" in name or name == "traces_url" else unset
            value = SECRET if "secret" in name else str(unset if field.default is None else field.default)
            context.setenv(variable_name(name), value)
            assert Settings().model_fields_set == {name}
