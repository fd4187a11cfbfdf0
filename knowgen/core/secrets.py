"""Detect keys, tokens and passwords: refuse them in arguments, and mask them in replies.

`refuse_secrets` is called with all user input (command line, Python arguments, suite files) before anything is written
or sent, `mask_secrets` with all external input before it is stored. No message of these functions contains a secret.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from knowgen.core.errors import ConfigError

MASK = "[key]"
"""Replacement of a secret in stored text."""

SECRET_NAME = re.compile(
    r"(api[_-]?key|access[_-]?key|private[_-]?key|(?<!max_)token(?!s|iz)|secret|password|passwd|authorization|"
    r"credential)(?!.*_env\Z)",
    re.IGNORECASE,
)
"""Names of arguments whose values are secrets. A name that ends in `_env` contains the name of a variable instead."""

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LONGEST_VARIABLE = 64

_SHAPES: tuple[tuple[str, str, str], ...] = (
    ("Anthropic", r"sk-ant-[\w-]{8,}", "ANTHROPIC_API_KEY"),
    ("OpenRouter", r"sk-or-(?:v1-)?[\w-]{8,}", "OPENROUTER_API_KEY"),
    ("OpenAI", r"sk-(?:proj|svcacct|admin|None|live|lf)-[\w-]{6,}", "OPENAI_API_KEY"),
    ("OpenAI", r"sk-(?=[\w-]{0,80}?[A-Za-z0-9]{16})[\w-]{16,}", "OPENAI_API_KEY"),
    ("OpenAI", r"sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}", "OPENAI_API_KEY"),
    ("Stripe", r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,}", ""),
    ("Google", r"AIza[\w-]{30,}", "GEMINI_API_KEY"),
    ("Google", r"AQ\.Ab[\w-]{20,}", "GEMINI_API_KEY"),
    ("Google", r"ya29\.[\w-]{20,}", "GEMINI_API_KEY"),
    ("Hugging Face", r"(?:hf|api_org)_[A-Za-z0-9]{20,}", "HF_TOKEN"),
    ("GitHub", r"gh[pousr]_[A-Za-z0-9]{20,}", "GITHUB_TOKEN"),
    ("GitHub", r"github_pat_\w{20,}", "GITHUB_TOKEN"),
    ("GitLab", r"gl(?:pat|ptt|dt|rt)-[\w-]{20,}", ""),
    ("AWS", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])", ""),
    ("AWS", r"ABSK[A-Za-z0-9+/]{60,}={0,2}", ""),
    ("Azure", r"[A-Za-z0-9]{50,}(?:JQQJ99|AZCS)[A-Za-z0-9]{8,}", "AZURE_OPENAI_API_KEY"),
    ("Alibaba", r"LTAI[A-Za-z0-9]{16,}", ""),
    ("Slack", r"xox[abeoprs]-[\w-]{10,}", ""),
    ("Slack", r"xapp-\d-[\w-]{10,}", ""),
    ("Groq", r"gsk_[A-Za-z0-9]{20,}", "GROQ_API_KEY"),
    ("xAI", r"xai-[A-Za-z0-9]{20,}", "XAI_API_KEY"),
    ("Perplexity", r"pplx-[A-Za-z0-9]{20,}", ""),
    ("Replicate", r"r8_[A-Za-z0-9]{20,}", "REPLICATE_API_TOKEN"),
    ("Fireworks", r"fw_[A-Za-z0-9]{20,}", "FIREWORKS_API_KEY"),
    ("NVIDIA", r"nvapi-[\w-]{20,}", "NVIDIA_API_KEY"),
    ("Tavily", r"tvly-(?:dev-|prod-)?[A-Za-z0-9]{16,}", "TAVILY_API_KEY"),
    ("Jina", r"jina_[A-Za-z0-9]{20,}", "JINA_API_KEY"),
    ("Together", r"tgp_v1_[\w-]{20,}", "TOGETHER_API_KEY"),
    ("Cerebras", r"csk-[A-Za-z0-9]{20,}", ""),
    ("Databricks", r"dapi[0-9a-f]{32}", ""),
    ("DigitalOcean", r"do[opr]_v1_[0-9a-f]{32,}", ""),
    ("SendGrid", r"SG\.[\w-]{16,}\.[\w-]{16,}", ""),
    ("npm", r"npm_[A-Za-z0-9]{30,}", ""),
    ("PyPI", r"pypi-AgE[\w-]{20,}", ""),
    ("JWT", r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}", ""),
    ("private", r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY", ""),
    ("bearer", r"(?i:bearer)\s+(?=\S*\d)[\w.~+/-]{16,}=*", ""),
)
"""Published formats of API keys: service, pattern, and the environment variable that usually contains such a key."""

_BY_SHAPE = re.compile(
    r"(?<![A-Za-z0-9])(?:" + "|".join(f"(?P<s{n}>{form})" for n, (_, form, _) in enumerate(_SHAPES)) + ")"
)
_SECRET_FIELD = (
    r"(?:[\w.-]{0,30}[_.-])?(?:api[_-]?key|key|token|sig|signature|secret|password|passwd|pwd|pass|auth|authorization|"
    r"bearer|credentials?|code|accesstoken|clientsecret|accesskey|subscriptionkey)"
)
_FIELD_IN_ADDRESS = re.compile(rf"[?&#;](?P<name>(?i:{_SECRET_FIELD}))=(?=[^&#;\s])")
_SECRET_SEGMENT = re.compile(r"(?i:api[_-]?keys?|key|access[_-]?token|token|secret|password)\Z")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s,'\"<>]+")
_ADDRESS_NAME = re.compile(r"url|address|endpoint|host|server|proxy", re.IGNORECASE)
_USER_WITHOUT_SCHEME = re.compile(r"[^/@\s:]+:[^/@\s]+@[\w.-]+")
_MODEL_NAMES = frozenset({"generator", "scorer", "scorers", "judge", "model"})
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z", re.IGNORECASE)
_HEX = re.compile(r"[0-9a-f]{32,}\Z|[0-9A-F]{32,}\Z")
_BEFORE_A_HASH = frozenset({"resolve", "blob", "raw", "commit", "tree", "archive", "snapshots", "sha256", "accounts"})
"""Parts of a URL path that are followed by a commit, a digest or an account number."""

_KEY_IN_MESSAGE = re.compile(r"\b(?:sk|pk|rk|key)-[\w*.-]{6,}|\bAIza[\w-]{20,}|\bBearer\s+\S+", re.IGNORECASE)
"""Keys in error messages of services, which may abbreviate them: `sk-ab***yz`."""

_LONG_RUN = 30
"""Minimum length of an uninterrupted run of letters and digits that is too long for a name."""

_SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?\Z", re.IGNORECASE)
_SHORTEST_VALUE = 12
"""Minimum length of a variable's value to be searched for; shorter values occur in ordinary words."""

_MAX_DEPTH = 100
"""Maximum nesting of data that is searched; deeper data is refused."""

_in_use: set[str] = set()
"""API keys that this process uses."""


@dataclass(frozen=True)
class FoundSecret:
    """The place of a secret, without the secret itself.

    Attributes:
        place: Names and indices that lead to the value, such as `("systems", 0, "args", "base_url")`.
        what: Message for the user.
        variable: Environment variable that usually contains such a key.
    """

    place: tuple[str | int, ...]
    what: str
    variable: str = "OPENAI_API_KEY"

    def error(self, where: str = "") -> ConfigError:
        """Return the error to raise."""
        fix = f"put it into the environment variable {self.variable} and name that variable with key_env"
        return ConfigError(self.what, where=where, fix=f"{fix}={self.variable}")


def refuse_secrets(values: Mapping[str, Any] | Iterable[tuple[str, Any]], *, where: str = "") -> None:
    """Check that no value looks like an API key, before values are written to disk or sent.

    Published key formats are searched for in every value. Further checks depend on the name of a value: `base_url` is
    parsed as a URL, `key_env` must be the name of a variable, the model in `generator`, `scorer` or `model` must not be
    a random token, and a name such as `api_key` is always refused.

    Args:
        values: User input by name: plain data of any depth. Other objects are ignored.
        where: File or plugin that the values belong to, for the error message. It must not contain a value.

    Raises:
        ConfigError: A value looks like a key. The message names its place and does not contain it.

    Example:
        >>> refuse_secrets({"generator": "gpt-image:gpt-image-1", "key_env": "OPENAI_API_KEY"})
    """
    if secret := find_secret(values):
        raise secret.error(where)


def find_secret(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> FoundSecret | None:
    """Return the place of the first value that looks like a key; arguments as in `refuse_secrets`."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return next(_in_pairs(pairs, (), set()), None)


def find_key(text: str) -> FoundSecret | None:
    """Return whether a text has what is certainly a key: a published form, or the value of a secret variable.

    For text that others wrote, such as replies and pages, where an address with a long random part is not a secret of
    the user's. What the user wrote is searched by `find_secret`.

    Example:
        >>> find_key("see https://example.org/a?q=tbn:ANd9GcR8xY2kQ1mZ0pL") is None
        True
    """
    if match := _BY_SHAPE.search(text):
        service, _, variable = _SHAPES[int((match.lastgroup or "s0")[1:])]
        what = f"contains what looks like a key ({_part_of(text, match.start(), service)})"
        return FoundSecret((), what, variable or "OPENAI_API_KEY")
    if any(secret in text for secret in _known_secrets()):
        return FoundSecret((), "contains the value of an environment variable that is named like a secret")
    return None


def command_line_values(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a command line without parsing it with its options.

    Args:
        words: Arguments after the program name.
    """
    option = ""
    for word in words:
        if word.startswith("--") and "=" in word:
            name, _, value = word.partition("=")
            yield _option_name(name), value
            option = ""
        elif re.match(r"-[A-Za-z]\w*[^\s=]*=", word):  # -skey=value
            yield from _key_value(word[2:])
            option = ""
        elif word.startswith("-") and len(word) > 1:
            yield "argument", word
            option = word
        else:
            pairs = _key_value(word) if option in {"-g", "-s"} else [(_option_name(option) or "argument", word)]
            yield from pairs
            option = ""


def check_variable_name(name: str, place: str, default: str = "OPENAI_API_KEY", where: str = "") -> None:
    """Check that a text is the name of an environment variable and not a key.

    Args:
        name: Text that the user wrote.
        place: Argument that contains it, such as `key_env`.
        default: Usual variable, suggested in the error message.
        where: The plugin, for the error message.

    Raises:
        ConfigError: The text is not the name of an environment variable. The message does not contain it.
    """
    if not _VARIABLE.match(name) or _is_key_alone(name):
        raise ConfigError(
            f"{place} must be the name of an environment variable, not a key",
            where=where,
            fix=f"write {place}={default}",
        )


def remember_secret(key: str) -> None:
    """Register a key, so that `mask_secrets` masks it from now on."""
    if len(key) >= _SHORTEST_VALUE:
        _in_use.add(key)


def mask_secrets(value: Any, key: str = "") -> Any:
    """Return text or data with all secrets replaced by `[key]`.

    Secrets are `key`, the registered keys, and the values of environment variables that are named like a secret, also
    where they are escaped for JSON or URLs.

    Args:
        value: Text, bytes, or plain data of any depth. Names in mappings are masked too.
        key: A further secret of any length; empty for none.

    Example:
        >>> mask_secrets({"error": "invalid key abc123"}, key="abc123")
        {'error': 'invalid key [key]'}
    """
    forms = [form for secret in {key, *_known_secrets()} if secret for form in _written_forms(secret)]
    return _masked(value, sorted(forms, key=len, reverse=True)) if forms else value


def mask_key_like(text: str) -> str:
    """Return an error message in which everything that looks like a key, whole or abbreviated, is `[key]`.

    Example:
        >>> mask_key_like("invalid key sk-ab***yz")
        'invalid key [key]'
    """
    return _KEY_IN_MESSAGE.sub(MASK, text)


def mask_published_forms(text: str) -> str:
    """Return a text in which known secrets, and everything in a published format of API keys, are `[key]`.

    For texts that will be published, such as the replies of a judge.

    Example:
        >>> mask_published_forms("use hf_abcdefghijklmnopqrstuvwxyz, it said")
        'use [key], it said'
    """
    return _BY_SHAPE.sub(MASK, str(mask_secrets(text)))


def _masked(value: Any, forms: Sequence[str]) -> Any:
    if isinstance(value, str):
        for form in forms:
            # a short key may occur in the base64 text of an image by chance
            if form in value and (len(form) >= _SHORTEST_VALUE or len(value) < 10_000):
                value = value.replace(form, MASK)
        return value
    if isinstance(value, bytes):
        for form in forms:
            value = value.replace(form.encode(), MASK.encode())
        return value
    if isinstance(value, Mapping):
        return {_masked(name, forms): _masked(inner, forms) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([_masked(inner, forms) for inner in value])
    return value


@lru_cache(maxsize=256)
def _written_forms(secret: str) -> tuple[str, ...]:
    """Return a secret in its plain form and escaped for JSON and URLs."""
    return tuple(
        {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], quote(secret, safe="")}
    )


def _known_secrets() -> set[str]:
    return _in_use | _secrets_of_environment()


class _Environment:
    """The secrets of the environment, read again only after a variable has changed: every stored record needs them."""

    def __init__(self) -> None:
        self.read: dict[Any, Any] | None = None
        self.secrets: frozenset[str] = frozenset()


_environment = _Environment()


def _secrets_of_environment() -> frozenset[str]:
    # iterating over `os.environ` decodes every variable; its dictionary is compared in a hundredth of that time
    raw: dict[Any, Any] | None = getattr(os.environ, "_data", None)
    if raw is None or raw != _environment.read:
        secrets = _read_environment()
        _environment.read, _environment.secrets = None if raw is None else dict(raw), secrets
    return _environment.secrets


def _read_environment() -> frozenset[str]:
    known: set[str] = set()
    for name, raw in os.environ.items():
        value = raw.strip()
        if len(value) < _SHORTEST_VALUE or not _SECRET_VARIABLE.search(name):
            continue
        # a path or an ordinary word under such a name is not a secret
        if not re.search(r"\s|^[/~.]", value) and (len(value) >= 20 or re.search(r"\d", value)):
            known.add(value)
    return frozenset(known)


def _in_pairs(
    pairs: Iterable[tuple[Any, Any]], place: tuple[str | int, ...], seen: set[tuple[int, str]]
) -> Iterator[FoundSecret]:
    """Yield the places of names and values that look like a key.

    Args:
        pairs: Names and values.
        place: Place of the mapping that they belong to.
        seen: `id` and name of mappings and lists that were searched, because data from YAML may contain itself.
    """
    for name, value in pairs:
        key = str(name)
        if message := _in_text(key, "argument"):
            yield FoundSecret(place, *message)
        else:
            yield from _in_value(key, value, (*place, key), seen)


def _in_value(name: str, value: Any, place: tuple[str | int, ...], seen: set[tuple[int, str]]) -> Iterator[FoundSecret]:
    own = name.rpartition(".")[2]
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if (id(value), name) in seen:
            return
        seen.add((id(value), name))
        if len(place) > _MAX_DEPTH:
            yield FoundSecret(place, f"{own} is nested deeper than {_MAX_DEPTH} levels and cannot be checked for keys")
            return
    if isinstance(value, Mapping):
        if SECRET_NAME.search(own) and value:
            yield _named(own, place)
        yield from _in_pairs(value.items(), place, seen)
    elif isinstance(value, list | tuple | set | frozenset):
        for number, inner in enumerate(value):
            yield from _in_value(name, inner, (*place, number), seen)
    elif own.endswith("_env"):
        if value not in (None, "") and (not _VARIABLE.match(str(value)) or _is_key_alone(str(value))):
            yield FoundSecret(place, f"{own} must be the name of an environment variable, not a key")
    elif SECRET_NAME.search(own) and not isinstance(value, bool):
        yield _named(own, place)
    elif isinstance(value, bytes | str | PurePath):
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        message = _in_text(text, own) or (_in_model(text, own) if own in _MODEL_NAMES else None)
        if not message and _ADDRESS_NAME.search(own):
            message = _in_bare_address(text, own)
        if message:
            yield FoundSecret(place, *message)


def _named(name: str, place: tuple[str | int, ...]) -> FoundSecret:
    return FoundSecret(place, f"argument {name!r} looks like a secret, and arguments are recorded")


def _in_text(text: str, name: str) -> tuple[str, str] | None:
    """Return the message on a key in a text and the variable that usually contains such a key; None without one."""
    usual = "OPENAI_API_KEY"
    for form in {text, unquote(text)}:
        if match := _BY_SHAPE.search(form):
            service, _, variable = _SHAPES[int((match.lastgroup or "s0")[1:])]
            return (
                f"{name} contains what looks like a key ({_part_of(form, match.start(), service)})",
                variable or usual,
            )
    if any(secret in text or secret in unquote(text) for secret in _known_secrets()):
        return f"{name} contains the value of an environment variable that is named like a secret", usual
    if match := _FIELD_IN_ADDRESS.search(text):
        return f"{name} contains what looks like a key (query parameter {match['name']!r})", usual
    for match in _ADDRESS.finditer(text):
        if part := _in_address(match.group()):
            return f"{name} contains what looks like a key ({part})", usual
    return None


def _part_of(text: str, start: int, service: str) -> str:
    """Return the part of a URL that contains a key, and the service whose format the key has."""
    label = f"the form of {'an' if service[0] in 'AEIOUa' else 'a'} {service} key"
    address = next((each for each in _ADDRESS.finditer(text) if each.start() <= start < each.end()), None)
    if address is None:
        return label
    before = text[address.start() : start]
    fields = re.findall(r"[?&;]([\w.-]{1,30})=[^&;#]*\Z", before)
    if "#" in before:
        part = "fragment"
    elif "?" in before:
        part = f"query parameter {fields[0]!r}" if fields else "query"
    else:
        part = "path" if before.count("/") > 2 else "user, password or host"
    return f"{part}, {label}"


def _in_address(address: str) -> str:
    """Return the part of a URL that contains a key; empty when none does."""
    try:
        parts = urlsplit(address)
        if "@" in parts.netloc:
            return "user or password before the host"
    except ValueError:  # such as a bracket that is not closed
        return "user or password before the host" if "@" in address.split("/")[2] else ""
    previous = ""
    for segment in unquote(parts.path).split("/"):
        if _SECRET_SEGMENT.match(previous) and len(segment) >= 8 and re.search(r"\d", segment):
            return "path"
        if previous not in _BEFORE_A_HASH and any(_is_random(token) for token in re.split(r"[=:;~@]", segment)):
            return "path"
        previous = segment
    if any(_is_random(token) for token in re.split(r"[^\w-]+", unquote(parts.fragment))):
        return "fragment"
    for pair in re.split(r"[&;]", parts.query):
        if _is_random(unquote(pair.partition("=")[2])):
            return "query"
    return ""


def _in_bare_address(text: str, name: str) -> tuple[str, str] | None:
    """Search a URL without a scheme; returns as `_in_text`."""
    if "://" in text:
        return None
    if _USER_WITHOUT_SCHEME.match(text):
        part = "user or password before the host"
    else:
        part = _in_address(f"http://{text}")
    return (f"{name} contains what looks like a key ({part})", "OPENAI_API_KEY") if part else None


def _in_model(text: str, name: str) -> tuple[str, str] | None:
    """Search the model in `name:model`; returns as `_in_text`."""
    base, colon, rest = text.partition(":")
    model = rest if colon else base
    if _USER_WITHOUT_SCHEME.match(model) and "://" not in model:
        return f"{name} contains what looks like a key (user or password before the host)", "OPENAI_API_KEY"
    if _is_random(model.partition("@")[0]) or re.match(r"sk-[\w-]{8,}\Z", model):
        return f"{name} contains what looks like a key in place of a model", "OPENAI_API_KEY"
    return None


def _is_key_alone(text: str) -> bool:
    """Return whether a whole text looks like a key."""
    return bool(_BY_SHAPE.search(text)) or len(text) > _LONGEST_VARIABLE or _is_random(text, shortest=16)


def _is_random(text: str, shortest: int = 20) -> bool:
    """Return whether a token looks random: a long hex number, or letters and digits that alternate too often for words.

    UUIDs are not counted as random, because they name deployments and accounts.
    """
    if _UUID.match(text):
        return False
    if _HEX.match(text):
        return bool(re.search(r"\d", text))
    if not re.fullmatch(r"[\w+=-]+", text, re.ASCII):
        return False
    letters = re.sub(r"[^A-Za-z0-9]", "", text)
    kinds = [
        "d" if letter.isdigit() else "u" if letter.isupper() else "l" if letter.isalpha() else "" for letter in text
    ]
    if len(letters) < shortest or not {"d"} < {*kinds} - {""}:
        return False
    changes = sum(bool(one) and bool(two) and one != two for one, two in itertools.pairwise(kinds))
    if max(len(piece) for piece in re.split(r"[^A-Za-z0-9]", text)) >= _LONG_RUN:
        min_share = 0.2
    else:
        min_share = 0.38 if {"u", "l"} < {*kinds} else 0.3 if "l" in kinds else 0.4
    return changes / len(letters) >= min_share


def _option_name(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _key_value(word: str) -> list[tuple[str, Any]]:
    """Return the name and value of `key=value`, and those inside a value that is a list or mapping."""
    name, equals, text = word.partition("=")
    if not equals:
        return [("argument", word)]
    return [(name, text), *_inner_fields(text)]


def _inner_fields(text: str) -> list[tuple[str, Any]]:
    """Return the names and values inside a value such as `{api_key: x}`."""
    if not text.lstrip().startswith(("{", "[")):
        return []
    return [
        (field[1].strip(), field[2].strip())
        for field in re.finditer(r"[{,\[]\s*['\"]?([\w -]+?)['\"]?\s*:\s*([^,}\]]+)", text)
    ]
