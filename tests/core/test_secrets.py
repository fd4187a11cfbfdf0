"""Keys in arguments are refused before anything is written; ordinary values are accepted."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import knowgen
from knowgen.cli.main import VERBS, run
from knowgen.core.errors import ConfigError
from knowgen.core.secrets import (
    check_variable_name,
    command_line_values,
    find_secret,
    mask_secrets,
    refuse_secrets,
    remember_secret,
)
from knowgen.suites import plan_suite
from knowgen.tasks.text_labels.annotate import annotate

_RANDOM = random.Random(20261128)
_LETTERS = string.ascii_letters + string.digits


def _letters(count: int, alphabet: str = _LETTERS) -> str:
    """Return random characters with at least one digit and letters of both cases, where the alphabet has them."""
    return "".join(_RANDOM.choice(alphabet) for _ in range(count - 6)) + (
        "aZ3bY4" if alphabet == _LETTERS else "a3b4c5" if "a" in alphabet else "A3B4C5"
    )


VENDOR_KEYS = {
    "openai": "sk-" + _letters(20) + "T3BlbkFJ" + _letters(20),
    "openai_project": "sk-proj-" + _letters(40) + "_" + _letters(30) + "-" + _letters(20),
    "openai_service": "sk-svcacct-" + _letters(60),
    "anthropic": "sk-ant-api03-" + _letters(60) + "-" + _letters(20) + "AA",
    "openrouter": "sk-or-v1-" + _letters(64, "0123456789abcdef"),
    "deepseek": "sk-" + _letters(32, "0123456789abcdef"),
    "google": "AIza" + _letters(35),
    "hugging_face": "hf_" + _letters(34),
    "github": "ghp_" + _letters(36),
    "github_fine_grained": "github_pat_" + _letters(22) + "_" + _letters(59),
    "gitlab": "glpat-" + _letters(20),
    "aws": "AKIA" + _letters(16, string.ascii_uppercase + string.digits),
    "slack": "xoxb-123456789012-" + _letters(24),
    "groq": "gsk_" + _letters(52),
    "xai": "xai-" + _letters(80),
    "nvidia": "nvapi-" + _letters(64),
    "jwt": f"eyJ{_letters(20)}.eyJ{_letters(40)}.{_letters(43)}",
    "azure": _letters(52) + "JQQJ99" + _letters(26),
}
PLAIN_KEYS = {
    "azure_hex": "d1" + _letters(30, "0123456789abcdef"),
    "base62": _letters(40),
}
"""Keys without a published format, recognised by their place."""

SOME_VENDORS = ["openai_project", "hugging_face", "jwt"]
SOME = [*SOME_VENDORS, *PLAIN_KEYS]
"""Keys that are tested with whole commands; all others are tested with the function."""

PLACES: dict[str, Callable[[str], tuple[str, str]]] = {
    "query": lambda key: ("base_url", f"https://judge.invalid/v1?api_key={key}"),
    "query_of_azure": lambda key: ("base_url", f"https://judge.invalid/openai?api-version=2024-10-21&code={key}"),
    "fragment": lambda key: ("base_url", f"https://judge.invalid/v1#{key}"),
    "password": lambda key: ("base_url", f"https://me:{key}@judge.invalid/v1"),
    "user": lambda key: ("base_url", f"https://{key}@judge.invalid/v1"),
    "path": lambda key: ("base_url", f"https://judge.invalid/{key}/v1"),
    "path_escaped": lambda key: ("base_url", f"https://judge.invalid/%2F{key}/v1"),
    "no_scheme": lambda key: ("base_url", f"judge.invalid/v1?token={key}"),
    "key_env": lambda key: ("key_env", key),
}


def leaks(folder: Path, key: str) -> list[str]:
    """Return the files and folders that contain the key in their content or name."""
    named = [path for path in folder.rglob("*") if key in path.name]
    return [str(p) for p in named + [p for p in folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, which contains the cache too; runs can only write here."""
    workspace = tmp_path / "workspace"
    (workspace / "mine").mkdir(parents=True)
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("KNOWGEN_CACHE", str(workspace / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "not-a-real-one")
    return workspace


def _suite(folder: Path, systems: str, scorers: str) -> str:
    path = folder / "suite.yaml"
    path.write_text(f"systems: [{systems}]\ntasks: [knowgen_mini]\nscorers: [{scorers}]\n")
    return str(path)


JUDGE = ["--scorer", "vlm:gpt-4.1"]
COMMANDS: dict[str, list[str]] = {
    "run": ["run", "--task", "knowgen_mini", "--generator", "oracle", "--limit", "1", "--out", "out", *JUDGE, "-s"],
    "run_generator": ["run", "--task", "knowgen_mini", "--generator", "openai:gpt-image-1", "--limit", "1", "-g"],
    "score": ["score", "mine", "--task", "knowgen_mini", "--out", "out", *JUDGE, "-s"],
    "judge_check": ["judge-check", "--samples", "1", "--out", "out", *JUDGE, "-s"],
    "annotate": ["task", "annotate", "knowgen_mini", "--judge", "vlm:gpt-4.1", "-s"],
    "check": ["check", "generator", "openai:gpt-image-1", "-g"],
    "serve": ["serve", "openai:gpt-image-1", "--port", "0", "-g"],
}


def refused(words: Sequence[str], key: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command, check that it refuses the key and never repeats it, and return its message."""
    code = run(list(words))
    printed = capsys.readouterr()
    assert code in (2, 3)
    assert "looks like" in printed.err or "must be the name of an environment variable" in printed.err
    assert key not in printed.err + printed.out
    assert not leaks(workspace, key)
    assert not (workspace / "out").exists() and not (workspace / "reports").exists()
    return printed.err


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("shape", SOME)
def test_a_key_in_an_argument_is_refused_before_anything_is_written(
    workspace: Path, capsys: pytest.CaptureFixture[str], shape: str, command: str, place: str
) -> None:
    key = (VENDOR_KEYS | PLAIN_KEYS)[shape]
    name, value = PLACES[place](key)
    assert refused([*COMMANDS[command], f"{name}={value}"], key, workspace, capsys)


@pytest.mark.parametrize("shape", SOME_VENDORS)
@pytest.mark.parametrize(
    "words",
    [
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "--scorer", "vlm:{}"],
        ["run", "--task", "knowgen_mini", "--generator", "openai:{}"],
        ["run", "--task", "knowgen_mini", "--generator={}"],
        ["run", "--task", "{}", "--generator", "oracle"],
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "--out", "reports/{}"],
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "-s", "note={}"],
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "-snote={}"],
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "-g", "{}"],
        ["run", "--task", "knowgen_mini", "--generator", "oracle", "-g", "extra={{headers: {{x: {}}}}}"],
        ["score", "mine", "--task", "knowgen_mini", "--scorer", "vlm:{}", "--out", "out"],
        ["score", "{}", "--scorer", "world_check"],
        ["judge-check", "--scorer", "vlm:{}"],
        ["task", "annotate", "knowgen_mini", "--judge", "vlm:{}"],
        ["check", "generator", "openai:{}"],
        ["check", "task", "{}"],
        ["serve", "http:https://{}@host.invalid"],
        ["serve", "oracle", "--token-env", "{}"],
        ["suite", "{}"],
        ["suite", "suite.yaml", "--only", "{}"],
        *([verb, "--unknown", "{}"] for verb in VERBS),
    ],
)
def test_a_key_anywhere_on_the_command_line_is_refused(
    workspace: Path, capsys: pytest.CaptureFixture[str], words: list[str], shape: str
) -> None:
    key = VENDOR_KEYS[shape]
    assert refused([word.format(key) for word in words], key, workspace, capsys)


@pytest.mark.parametrize("shape", SOME)
@pytest.mark.parametrize("place", [*PLACES, "generator", "scorer", "argument"])
def test_a_key_in_a_suite_file_is_refused_with_its_line(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str, place: str
) -> None:
    key = (VENDOR_KEYS | PLAIN_KEYS)[shape]
    system, scorer = "oracle", "world_check"
    if place == "generator":
        system = f"'openai:{key}'"
    elif place == "scorer":
        scorer = f"'vlm:{key}'"
    elif place == "argument":
        system = "{generator: oracle, args: {headers: [{Authorization: '" + key + "'}]}}"
    else:
        name, value = PLACES[place](key)
        scorer = f"{{scorer: 'vlm:gpt-4.1', args: {{{name}: '{value}'}}}}"
    message = refused(["suite", _suite(tmp_path, system, scorer), "--out", "out"], key, workspace, capsys)
    assert f"suite.yaml:{3 if scorer != 'world_check' else 1}: " in message


@pytest.mark.parametrize("shape", SOME)
@pytest.mark.parametrize("place", [*PLACES, "model"])
@pytest.mark.parametrize("call", ["evaluate", "generator", "score", "annotate", "suite"])
def test_a_key_in_a_python_call_is_refused_before_anything_is_written(
    workspace: Path, tmp_path: Path, call: str, place: str, shape: str
) -> None:
    key = (VENDOR_KEYS | PLAIN_KEYS)[shape]
    model = key if place == "model" else "gpt-4.1"
    args = {} if place == "model" else dict([PLACES[place](key)])
    with pytest.raises(ConfigError) as caught:
        if call == "evaluate":
            knowgen.evaluate("knowgen_mini", "oracle", f"vlm:{model}", scorer_args=args, limit=1, out="out")
        elif call == "generator":
            knowgen.evaluate("knowgen_mini", f"openai:{model}", "world_check", generator_args=args, out="out")
        elif call == "score":
            knowgen.score("mine", f"vlm:{model}", task="knowgen_mini", scorer_args=args, out="out")
        elif call == "annotate":
            annotate("knowgen_mini", f"vlm:{model}", args)
        else:
            inner = ", ".join(f"{name}: '{value}'" for name, value in args.items())
            plan_suite(_suite(tmp_path, "oracle", f"{{scorer: 'vlm:{model}', args: {{{inner}}}}}"), workspace / "out")
    assert key not in f"{caught.value}{caught.value.where}{caught.value.fix}"
    assert not leaks(workspace, key) and not (workspace / "out").exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("shape", [*VENDOR_KEYS, *PLAIN_KEYS])
def test_every_form_of_a_key_is_recognised_in_every_place(shape: str, place: str) -> None:
    name, value = PLACES[place]((VENDOR_KEYS | PLAIN_KEYS)[shape])
    assert find_secret({name: value})
    assert find_secret({"generator": {"args": [{f"vlm.{name}": value}]}})
    assert find_secret(command_line_values(["run", "-s", f"vlm.{name}={value}"]))
    assert find_secret(command_line_values([f"--{name.replace('_', '-')}={value}"]))


@pytest.mark.parametrize("shape", VENDOR_KEYS)
def test_a_published_form_is_recognised_in_any_text(shape: str) -> None:
    for text in ("{}", "see {} there", "reports/{}/x", "my_{}", "'{}'", "x={}"):
        assert find_secret({"note": text.format(VENDOR_KEYS[shape])}), text
        assert find_secret({text.format(VENDOR_KEYS[shape]): 1}), text


def test_data_that_contains_itself_is_checked_once_and_endless_nesting_is_refused() -> None:
    looped: dict[str, Any] = {"size": 64}
    looped["again"] = [looped]
    refuse_secrets(looped)
    looped["note"] = VENDOR_KEYS["openai"]
    assert find_secret(looped)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ConfigError, match="nested deeper"):
        refuse_secrets({"deep": deep})


class Remote:
    """A generator object with a key among its arguments."""

    def __init__(self, note: str) -> None:
        self.note = note

    def draw(self, prompt: str) -> Any:
        raise AssertionError("nothing may be generated")


def test_a_key_among_the_arguments_of_an_object_is_refused(workspace: Path) -> None:
    key = VENDOR_KEYS["openai"]
    with pytest.raises(ConfigError, match="note contains what looks like a key"):
        knowgen.evaluate("knowgen_mini", Remote(key), "world_check", out="out")
    assert not leaks(workspace, key)


HARMLESS: list[tuple[str, Any]] = [
    ("scorer", "vlm:gpt-4.1-mini-2025-04-14"),
    ("scorer", "vlm:qwen/qwen2.5-vl-72b-instruct:free"),
    ("scorer", "vlm:meta-llama/Llama-3.3-70B-Instruct-Turbo-FP8"),
    ("scorer", "vlm:claude-3-5-sonnet-20241022"),
    ("scorer", "vlm:accounts/fireworks/models/llama-v3p2-90b-vision-instruct"),
    ("scorer", "vlm:ft:gpt-4o-mini-2024-07-18:my-company::A1b2C3d4"),
    ("scorer", "my_judge.py:Judge"),
    ("scorer", "package.module:Qwen25VL72BInstructJudge"),
    ("generator", "local:black-forest-labs/FLUX.1-dev@0ef5fff789c832c5c7f4e127f94c8b54bbcced44"),
    ("generator", "local:/home/me/.cache/hub/models--a--b/snapshots/0ef5fff789c832c5c7f4e127f94c8b54bbcced44"),
    ("generator", "http:http://gpu1:8001,http://gpu2.internal.example.org:8001"),
    ("generator", "ark:doubao-seedream-4-0-250828"),
    ("generator", "gemini:gemini-2.5-flash-image-preview"),
    ("model", "scikit-learn/sk-learn-image-models"),
    ("model", "hf-internal-testing/tiny-stable-diffusion-pipe"),
    ("revision", "0ef5fff789c832c5c7f4e127f94c8b54bbcced44"),
    ("revision", "refs/pr/12"),
    ("digest", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("weights", "/mnt/disk1/models/sd3.5-large/text_encoder_3/model-00001-of-00002.safetensors"),
    ("upstream_dir", Path("/home/me/src/Gen-Searcher")),
    ("base_url", ""),
    ("base_url", "https://api.openai.com/v1"),
    ("base_url", "http://127.0.0.1:8000/v1"),
    ("base_url", "http://[::1]:8000/v1"),
    ("base_url", "https://my-company.openai.azure.com/openai/deployments/gpt-4o-2024-08-06?api-version=2024-10-21"),
    ("base_url", "https://x.azure.com/openai/deployments/1b4e28ba-2fa1-11d2-883f-0016d3cca427/?api-version=2024-10-21"),
    ("base_url", "https://gateway.ai.cloudflare.com/v1/accounts/023e105f4ecef8ad9ca31a8372d0c353/ai/v1"),
    ("base_url", "https://us-central1-aiplatform.googleapis.com/v1/projects/my-project-123456/locations/us-central1"),
    ("base_url", "https://dashscope.aliyuncs.com/compatible-mode/v1"),
    ("base_url", "https://api.runpod.ai/v2/vllm-5xk2m9q1w7z3p4/openai/v1"),
    ("base_url", "https://huggingface.co/a/b/resolve/0ef5fff789c832c5c7f4e127f94c8b54bbcced44/config.json"),
    ("key_env", ""),
    ("key_env", "OPENAI_API_KEY"),
    ("key_env", "my_judge_key_2"),
    ("key_env", "AZURE_OPENAI_API_KEY_SWEDEN_CENTRAL_2"),
    ("token_env", "SERVE_TOKEN"),
    ("max_tokens", 8192),
    ("tokenizer", "Qwen/Qwen2.5-7B"),
    ("negative_prompt", "blurry, low quality, a key? a token & a password"),
    ("ids", ["world_000123_a", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"]),
    ("system", "qwen-image-edit-2509"),
    ("steps", 40),
    ("extra", {"size": [1024, 1024], "nothing": None, "flag": True}),
]


def refusal(values: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> str:
    """Return the error that refuses values, empty if they are accepted."""
    try:
        refuse_secrets(values)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "value"), HARMLESS, ids=lambda value: str(value)[:40])
def test_an_ordinary_value_is_accepted(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    assert refusal({name: value}) == ""
    assert refusal(command_line_values(["run", "-g", f"{name}={value}"])) == ""
    assert refusal(command_line_values(["run", f"--{name.replace('_', '-')}", str(value)])) == ""


def test_commands_of_the_documentation_are_accepted() -> None:
    root = Path(__file__).resolve().parents[2]
    lines = [
        line.strip().removeprefix("$ ")
        for page in [root / "README.md", *(root / "docs").rglob("*.md")]
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.strip().removeprefix("$ ").startswith("knowgen ")
    ]
    assert len(lines) > 20
    assert [line for line in lines if refusal(command_line_values(line.split()[1:]))] == []


@pytest.mark.parametrize(
    "name", ["api_key", "API-KEY", "apikey", "hf_token", "password", "client_secret", "vlm.api_key", "Authorization"]
)
def test_an_argument_named_like_a_secret_is_refused_with_any_value(name: str) -> None:
    with pytest.raises(ConfigError, match="looks like a secret") as caught:
        refuse_secrets({"inner": [{name: "open sesame"}]}, where="scorer vlm")
    assert str(caught.value).startswith("scorer vlm: ") and "sesame" not in str(caught.value)


def test_the_value_of_a_secret_variable_is_refused_in_any_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_secret({"note": "see plain-words-12 there"}) is None
    monkeypatch.setenv("MY_PROXY_PASSWORD", "plain-words-12")
    with pytest.raises(ConfigError, match="named like a secret") as caught:
        refuse_secrets({"note": "see plain-words-12 there"})
    assert "plain-words" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://h.invalid/v1?api_key=abc", "query parameter 'api_key'"),
        ("https://h.invalid/v1#sk-proj-abcdefgh12345678", "fragment, the form of an OpenAI key"),
        ("https://me:pw@h.invalid/v1", "user or password before the host"),
        ("me:pw@h.invalid/v1", "user or password before the host"),
        ("https://h.invalid/v1/token/abc12345", "path"),
    ],
)
def test_the_message_names_the_place_and_the_remedy(value: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_secrets({"base_url": value})
    assert caught.value.what.startswith("base_url contains what looks like a key (") and words in caught.value.what
    assert "OPENAI_API_KEY" in caught.value.fix and "key_env" in caught.value.fix


def test_nearly_every_random_token_in_an_address_is_recognised() -> None:
    chance = random.Random(7)
    for alphabet, length in ((_LETTERS, 32), (_LETTERS + "-_", 43), (string.ascii_lowercase + string.digits, 40)):
        tokens = ["".join(chance.choice(alphabet) for _ in range(length)) for _ in range(500)]
        for form in ("https://h.invalid/{}/v1", "https://h.invalid/v1#{}", "https://h.invalid/v1?x={}"):
            detected = [token for token in tokens if find_secret({"base_url": form.format(token)})]
            assert len(detected) >= 0.97 * len(tokens), (alphabet, form)


@pytest.mark.parametrize(
    "name", ["", "1KEY", "MY-KEY", "MY KEY", "X" * 65, *VENDOR_KEYS.values(), *PLAIN_KEYS.values()]
)
def test_a_value_that_is_not_a_variable_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be the name of an environment variable") as caught:
        check_variable_name(name, "key_env", "MY_KEY")
    assert "write key_env=MY_KEY" in str(caught.value)
    assert not name or name not in str(caught.value)


@pytest.mark.parametrize("key", ["short7", 'quote"d-and-\\long', "käse-und-brot-123", *VENDOR_KEYS.values()])
def test_a_key_is_masked_in_text_bytes_and_data(key: str) -> None:
    data = {"error": [f"wrong key: {key}!", {"n": 3, key: None}], "pair": (key, True)}
    assert mask_secrets(data, key) == {"error": ["wrong key: [key]!", {"n": 3, "[key]": None}], "pair": ("[key]", True)}
    assert mask_secrets(f"<{key}>".encode(), key) == b"<[key]>"
    assert mask_secrets("nothing here", key) == "nothing here"


def test_a_key_in_use_is_masked_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knowgen.core.secrets._in_use", set())
    key = "a-key-in-use-0001"
    assert mask_secrets(key) == key
    remember_secret(key)
    assert mask_secrets(f"got {key}") == "got [key]"
    monkeypatch.setenv("SOME_API_KEY", "an-environment-key-7")
    assert mask_secrets("an-environment-key-7") == "[key]"
    monkeypatch.setenv("SOME_API_KEY", "another-environment-key-8")
    assert mask_secrets("an-environment-key-7 another-environment-key-8") == "an-environment-key-7 [key]"
    monkeypatch.delenv("SOME_API_KEY")
    assert mask_secrets("another-environment-key-8") == "another-environment-key-8"


def test_a_short_key_does_not_damage_the_base64_of_an_image() -> None:
    image = "AbC1" * 5000
    assert mask_secrets({"image": image, "words": "AbC1"}, "AbC1") == {"image": image, "words": "[key]"}
