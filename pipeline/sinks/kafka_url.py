"""What a Kafka URL says.

    kafka://host:9092/topic                              no authentication, no encryption
    kafka+tls://host:9093/topic?ca=authority.pem         TLS
    kafka+sasl://user@host:9094/topic                    SCRAM-SHA-512 (?mechanism=PLAIN for plain), as Rubin's brokers
    kafka+sasl+tls://user@host:9095/topic                both

    ?key=object             messages are keyed by diaObjectId, ssObjectId of Solar System alerts; default none
    ?compression=lz4        lz4, snappy (default), zstd or none
    ?transactions=no        at least once instead of exactly once
    ?positions=TOPIC        the topic of positions; default TOPIC.positions
    ?password_file=FILE     ?password_env=NAME; default the environment variable ALERT_TWIN_KAFKA_PASSWORD
    ?config=FILE            further settings of librdkafka, a `name=value` per line

Several brokers are separated by commas. A password stands in a file or an environment variable, never in the URL, which
every user of the machine can see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from pipeline.errors import InputError

EXPECTED: Final = "kafka://host:port/topic"
PROTOCOLS: Final = {"kafka": "plaintext", "kafka+tls": "ssl", "kafka+sasl": "sasl_plaintext",
                    "kafka+sasl+tls": "sasl_ssl"}
PASSWORD: Final = "ALERT_TWIN_KAFKA_PASSWORD"
_CHOICES: Final = {"mechanism": ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"), "key": ("none", "object"),
                   "compression": ("snappy", "lz4", "zstd", "none"), "transactions": ("yes", "no")}
_FREE: Final = ("positions", "password_file", "password_env", "ca", "config")


@dataclass(frozen=True, slots=True)
class KafkaUrl:
    """Where to send, and as whom."""

    servers: str
    topic: str
    key: str
    transactions: bool
    positions: str
    settings: Mapping[str, Any] = field(repr=False)     # of librdkafka, with the password

    @classmethod
    def parse(cls, url: str, environment: Mapping[str, str]) -> "KafkaUrl":
        """InputError names the URL and what is wrong with it."""
        parts = urlsplit(url)
        user, _, servers = parts.netloc.rpartition("@")
        topic = parts.path.strip("/")
        if parts.scheme not in PROTOCOLS or not servers or not topic or "/" in topic:
            raise InputError(f"alert sink {url!r}: expected {EXPECTED}")
        options = _options(url, parts.query)
        sasl = "sasl" in parts.scheme
        if ":" in user:
            raise InputError(f"alert sink {parts.scheme}://{servers}/{topic}: no password in a URL, which every user "
                             f"of this machine can see; put it into the environment variable {PASSWORD}, or name a "
                             "file with password_file=FILE")
        if sasl != bool(user):
            raise InputError(f"alert sink {url!r}: expected " + ("kafka+sasl://user@host:port/topic" if sasl else
                             f"{EXPECTED} without a user, or kafka+sasl://user@host:port/topic"))
        settings: dict[str, Any] = {"security.protocol": PROTOCOLS[parts.scheme],
                                    "compression.type": options.get("compression", "snappy"),
                                    **_read_settings(url, options.get("config", ""))}
        if "ca" in options:
            settings["ssl.ca.location"] = str(_file(url, "ca", options["ca"]))
        if sasl:
            settings |= {"sasl.mechanism": options.get("mechanism", "SCRAM-SHA-512"), "sasl.username": user}
            settings.setdefault("sasl.password", _password(url, options, environment))
        return cls(servers, topic, options.get("key", "none"), options.get("transactions", "yes") == "yes",
                   options.get("positions", ""), settings)


def _options(url: str, query: str) -> dict[str, str]:
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in found.items():
        if name in _CHOICES and value not in _CHOICES[name]:
            raise InputError(f"alert sink {url!r}: {name} must be {', '.join(_CHOICES[name])}, got {value!r}")
        if name not in _CHOICES and name not in _FREE:
            raise InputError(f"alert sink {url!r}: no option {name!r}; there are {', '.join((*_CHOICES, *_FREE))}")
    return found


def _password(url: str, options: Mapping[str, str], environment: Mapping[str, str]) -> str:
    if "password_file" in options:
        return _file(url, "password_file", options["password_file"]).read_text().rstrip("\n")
    name = options.get("password_env", PASSWORD)
    if not environment.get(name):
        raise InputError(f"alert sink {url!r}: no password; put it into the environment variable {name}, or name a "
                         "file with password_file=FILE")
    return environment[name]


def _read_settings(url: str, name: str) -> dict[str, str]:
    """The `name=value` lines of a settings file."""
    if not name:
        return {}
    settings = {}
    for number, line in enumerate(_file(url, "config", name).read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise InputError(f"{name}, line {number}: expected name=value, got {line.strip()!r}")
        settings[key.strip()] = value.strip()
    return settings


def _file(url: str, option: str, name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise InputError(f"alert sink {url!r}: {option} {name!r} is not a file")
    return path
