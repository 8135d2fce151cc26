"""Configuration: what is accepted, and that everything else becomes one ConfigError with every problem and its line."""

import dataclasses
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heliostat import config
from heliostat.config import Config, keys
from heliostat.config.load import load_config
from heliostat.errors import ConfigError
from heliostat.upstream.client import Upstream

MINIMAL = '[mirror]\ndirectory = "/srv/pypi"\n'


def load(text: str, **environ: str) -> Config:
    return load_config(text, source="h.toml", environ=environ)


def problems(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, **environ)
    return list(caught.value.problems)


def upstream(line: str) -> str:
    return MINIMAL + f"[upstream]\n{line}\n"


def mirror(line: str) -> str:
    return MINIMAL + line + "\n"


def test_the_least_configuration_follows_the_public_index() -> None:
    loaded = load(MINIMAL)
    assert loaded.mirror == config.MirrorConfig(directory="/srv/pypi")
    assert loaded.upstream.url == (config.DEFAULT_UPSTREAM,)
    assert loaded.upstream.file_hosts == config.DEFAULT_FILE_HOSTS
    assert loaded.source == "h.toml"


def test_another_upstream_does_not_get_the_public_index_s_file_hosts() -> None:
    assert load(upstream('url = "https://index.example/"')).upstream.file_hosts == ()
    assert load(upstream('url = "https://index.example"')).upstream.url == ("https://index.example",)
    both = load(upstream(f'url = ["https://index.example", "{config.DEFAULT_UPSTREAM}"]'))
    assert both.upstream.file_hosts == config.DEFAULT_FILE_HOSTS


def test_every_problem_is_reported_at_once_with_its_line() -> None:
    text = """\
[mirror]
project = ["a"]
projects = [
  "a.b",
  "A_b", 'bad name',
]
everything = "yes"
[upstraem]
x = 1
[upstream]
url = ["https://one.example", "http://user:secret@two.example"]
max-page = "64mb"
metadata_at_once = 3
heartbeat = 3
"""
    found = problems(text)
    assert [line.split(" ", 1)[0] for line in found] == [
        "h.toml:1:",
        "h.toml:2:",
        "h.toml:5:",
        "h.toml:5:",
        "h.toml:7:",
        "h.toml:8:",
        "h.toml:11:",
        "h.toml:12:",
        "h.toml:13:",
        "h.toml:14:",
    ]
    assert found[0] == (
        'h.toml:1: [mirror] directory: missing; say where the mirror goes, such as directory = "/srv/pypi"'
    )
    assert found[1] == "h.toml:2: [mirror] project: unknown key; did you mean projects?"
    assert "A_b and a.b are the same project" in found[2]
    assert "'bad name'" in found[3]
    assert found[4] == "h.toml:7: [mirror] everything: is text; write true or false (without quotes)"
    assert found[5] == "h.toml:8: [upstraem]: unknown; did you mean upstream?"
    assert "http://two.example is not encrypted" in found[6]
    assert found[8] == "h.toml:13: [upstream] metadata_at_once: unknown key; did you mean metadata-at-once?"
    assert found[9] == "h.toml:14: [upstream] heartbeat: unknown key; it belongs into [mirror]"
    assert "secret" not in "\n".join(found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[mirror\n", 1),
        ('[mirror]\ndirectory = "/x"\nprojects = [1,,2]\n', 3),
        ('[mirror]\ndirectory = "/x"\ndirectory = "/y"\n', 3),
        ('[mirror]\ndirectory = """', 2),
        ("x = " + "[" * 100_000, 1),
        ("x = " + "1" * 10_000, 1),
    ],
)
def test_text_that_is_not_toml_is_one_problem_with_its_line(text: str, line: int) -> None:
    (found,) = problems(text)
    assert found.startswith(f"h.toml:{line}: ")


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ('"64MiB"', 64 << 20),
        ('"1.5 GiB"', 3 << 29),
        ('"10MB"', 10**7),
        ('"4096"', 4096),
        ("4096", 4096),
        ('"2kB"', 2000),
    ],
)
def test_sizes(value: str, size: int) -> None:
    assert load(upstream(f"max-page = {value}")).upstream.max_page == size


@pytest.mark.parametrize("value", ['"64mb"', '"many"', "1.5", "true", "-1", '"-1MiB"', '"1e3"', "1", '"9999999TiB"'])
def test_what_is_no_size(value: str) -> None:
    (found,) = problems(upstream(f"max-page = {value}"))
    assert found.startswith("h.toml:4: [upstream] max-page: ")


def test_percentages() -> None:
    assert load(mirror('min-free = "12.5%"')).mirror.min_free == 0.125
    assert load(mirror('min-free = "0%"')).mirror.min_free == 0
    for value in ('"100%"', '"5"', "5", "0.05", '"-1%"'):
        assert "write it like" in problems(mirror(f"min-free = {value}"))[0]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "true", '"60"', "1979-05-27"])
def test_what_is_no_duration(value: str) -> None:
    (found,) = problems(mirror(f"interval = {value}"))
    assert "a number of seconds from 1 to 2592000" in found


def test_counts_are_whole_numbers_within_bounds() -> None:
    assert load(upstream("files-at-once = 200")).upstream.files_at_once == 200
    for value in ("0", "1025", "8.0", "true", '"8"'):
        assert "a whole number from 1 to 1024" in problems(upstream(f"files-at-once = {value}"))[0]


def test_text_within_a_choice() -> None:
    assert load(upstream('changes = "list"')).upstream.changes == "list"
    assert problems(upstream('changes = "fed"')) == [
        'h.toml:4: [upstream] changes: is none of "auto", "feed", "static", "list"; did you mean feed?'
    ]
    assert problems(upstream("changes = true"))


@pytest.mark.parametrize(
    "url",
    [
        "ftp://index.example",
        "index.example",
        "https://",
        "https://index.example?x=1",
        "https://index.example/#x",
        "https://index.example/simple/",
        "https://index.example:99999",
        "https://[::1",
        "https://index example",
        "https://user:secret@index.example/?x",
        "https://user:se/secret@index.example/",
        "https://user:secret@index.example/a@b",
        "//user:secret@index.example",
        "secret@index.example",
        "https://a:secret@host℀.example",  # urlsplit's own message quotes the whole authority
        "",
        "a\\tb",
    ],
)
def test_bad_urls_are_refused_without_showing_credentials(url: str) -> None:
    (found,) = problems(upstream(f'url = "{url}"'))
    assert found.startswith("h.toml:4: [upstream] url: ")
    assert "secret" not in found


def test_credentials_may_come_from_the_environment() -> None:
    text = upstream('url = "https://me:${TOKEN}@index.example"')
    assert load(text, TOKEN="s3cret").upstream.url == ("https://me:s3cret@index.example",)
    assert problems(text) == [
        "h.toml:4: [upstream] url: the environment variable TOKEN is not set; set it, or write the value itself"
    ]


def test_plain_http_needs_consent() -> None:
    assert load(upstream('url = "http://127.0.0.1:8080"\nallow-http = true')).upstream.allow_http
    (found,) = problems(upstream('url = "http://me:pw@127.0.0.1:8080"'))
    assert found == (
        "h.toml:4: [upstream] url: http://127.0.0.1:8080 is not encrypted; use https, or set allow-http = true"
    )


@pytest.mark.parametrize("value", ["", "  ", "me\\r\\nX-Evil: 1", "\\u202e", "a\\u0000b"])
def test_texts_are_one_plain_line(value: str) -> None:
    assert load(upstream('contact = "me@index.example"')).upstream.contact == "me@index.example"
    assert problems(upstream(f'contact = "{value}"')) == [
        "h.toml:4: [upstream] contact: is empty or holds a control character; write plain text, or leave the key out"
    ]


def test_a_list_of_sources() -> None:
    loaded = load(upstream('url = ["https://one.example/", "https://two.example/path/"]'))
    assert loaded.upstream.url == ("https://one.example", "https://two.example/path")
    assert problems(upstream("url = []"))
    assert problems(upstream('url = ["https://one.example/", "https://one.example"]'))


def test_file_hosts() -> None:
    loaded = load(upstream('file-hosts = ["Files.Example:8443", "[::1]:80"]'))
    assert loaded.upstream.file_hosts == ("files.example:8443", "[::1]:80")
    for host in ("https://files.example", "files.example/x", "a:b", "a:0", "", "*.example"):
        assert "file-hosts" in problems(upstream(f'file-hosts = ["{host}"]'))[0]


def test_an_empty_list_of_file_hosts_is_kept_even_for_the_public_index() -> None:
    assert load(upstream("file-hosts = []")).upstream.file_hosts == ()


def test_projects_and_everything_contradict_each_other() -> None:
    assert load(mirror("everything = true")).mirror.everything
    assert load(mirror('projects = ["A.b"]\neverything = false')).mirror.projects == ("A.b",)
    assert problems(mirror('projects = ["a"]\neverything = true')) == [
        "h.toml:4: [mirror] everything: contradicts projects; keep one of the two"
    ]


def test_back_off_limits_must_be_in_order() -> None:
    assert "retry-first: is more than retry-most" in problems(mirror("retry-first = 99999"))[0]
    assert "retry-delay: is more than retry-delay-most" in problems(upstream("retry-delay-most = 0.5"))[0]


def test_relative_paths_count_from_the_configuration_s_folder() -> None:
    text = '[mirror]\ndirectory = "pypi"\nstate = "../state"\n'
    loaded = load_config(text, source="/etc/heliostat/heliostat.toml", environ={})
    assert (loaded.mirror.directory, loaded.mirror.state) == ("/etc/heliostat/pypi", "/etc/state")
    home = load_config('[mirror]\ndirectory = "~/pypi"\n', source="/etc/h.toml", environ={"HOME": "/home/me/"})
    assert home.mirror.directory == "/home/me/pypi"
    assert "HOME is not set" in problems('[mirror]\ndirectory = "~/pypi"\n')[0]


def test_sections_must_be_sections() -> None:
    found = problems('mirror = "x"\nother = 1\n')
    assert (
        found[0] == 'h.toml:1: [mirror] directory: missing; say where the mirror goes, such as directory = "/srv/pypi"'
    )
    assert "h.toml:1: mirror: is no section; write [mirror] on a line of its own" in found
    assert "h.toml:2: other: unknown; remove it (heliostat config init shows what there is)" in found


def test_dotted_and_inline_forms_keep_their_lines() -> None:
    assert problems('\nmirror.directory = "/x"\nmirror.interval = "x"\n')[0].startswith("h.toml:3: [mirror] interval")
    assert problems('\nmirror = {directory = "/x", interval = "x"}\n')[0].startswith("h.toml:2: [mirror] interval")


def other_than(default: object) -> object:
    match default:
        case bool():
            return not default
        case int():
            return default * 2 if default < 500 or default > 1024 else default // 2
        case float():
            return default * 2
    return None


@pytest.mark.parametrize("section", config.SECTIONS)
def test_every_key_reaches_its_field(section: str) -> None:
    for key, item in keys(section).items():
        wanted = other_than(item.default)
        if wanted is None or key in ("min-free", "jitter"):  # text and lists, which have tests of their own
            continue
        head = MINIMAL + ("" if section == "mirror" else f"[{section}]\n")
        loaded = load(f"{head}{key} = {str(wanted).lower()}\n")
        assert getattr(getattr(loaded, section), item.name) == wanted, key


def test_the_tree_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        load(MINIMAL).mirror.everything = True  # type: ignore[misc]


def problems_or_none(text: str, **environ: str) -> tuple[str, ...]:
    """The problems of any text at all; nothing but ConfigError may come out, and never one without a problem."""
    try:
        load(text, **environ)
    except ConfigError as error:
        return error.problems or ("a ConfigError that names no problem",)
    return ()


SECTION_WORDS = st.sampled_from(["mirror", "upstream", "policy", "mirror.x", "[mirror]"]) | st.text(max_size=8)
KEY_WORDS = st.sampled_from([*keys("mirror"), *keys("upstream"), "", "a.b"]) | st.text(max_size=8)
SCALARS = (
    st.booleans().map(lambda value: str(value).lower())
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["1979-05-27", "07:32:00", "{}", "[]", "[[]]", "{a=1}", '"64MiB"', '"5%"', '"${X}"', '"~/x"'])
    | st.sampled_from(['"https://a:b@c"', '"https://[::1"', '"http://h:x"', '"/x"', '["a","A"]', '"\\u0000"'])
    | st.text(string.printable, max_size=12).map(lambda text: f'"{text}"')
    | st.text(max_size=12).map(lambda text: f"'{text}'")
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3).map(lambda items: "[" + ",".join(items) + "]")
LINES = st.one_of(
    SECTION_WORDS.map(lambda word: f"[{word}]"),
    st.tuples(KEY_WORDS, VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}"),
    st.text(max_size=20),
)


@given(st.lists(LINES, max_size=8).map("\n".join))
@example('[mirror]\ndirectory = "/srv"\n[upstream]\nurl = "https://[::1"\n')
def test_any_text_gives_a_configuration_or_a_configerror(text: str) -> None:
    for problem in problems_or_none(text, HOME="/home/me"):
        source, line, rest = problem.split(":", 2)
        assert source == "h.toml"
        assert 1 <= int(line) <= text.count("\n") + 1
        assert rest.strip()
        assert problem.isprintable()


@given(KEY_WORDS, VALUES, st.sampled_from(["mirror", "upstream"]))
def test_any_value_of_any_key_gives_a_configuration_or_a_configerror(key: str, value: str, section: str) -> None:
    text = MINIMAL if section == "mirror" else MINIMAL + "[upstream]\n"
    assert all(problem.startswith("h.toml:") for problem in problems_or_none(f"{text}{key} = {value}\n"))


# --- where to listen ---------------------------------------------------------------------------------------------


def service(line: str) -> str:
    return MINIMAL + f"[service]\n{line}\n"


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ('"127.0.0.1:9100"', ("127.0.0.1:9100",)),
        ('["127.9.9.9:1", "[::1]:65535"]', ("127.9.9.9:1", "[::1]:65535")),
        ('"unix:/run/x/http.sock"', ("unix:/run/x/http.sock",)),
        ("[]", ()),
    ],
)
def test_addresses_to_listen_on(value: str, addresses: tuple[str, ...]) -> None:
    assert load(service(f"listen = {value}")).service.listen == addresses


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            '"0.0.0.0:9100"',
            "0.0.0.0:9100 can be reached from other machines; use 127.0.0.1, or set listen-public = true",
        ),
        ('"[::]:9100"', "[::]:9100 can be reached from other machines; use 127.0.0.1, or set listen-public = true"),
        ('"10.1.2.3:80"', "10.1.2.3:80 can be reached from other machines; use 127.0.0.1, or set listen-public = true"),
        (
            '"localhost:9100"',
            "'localhost:9100' is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock",
        ),
        ('"127.0.0.1"', "'127.0.0.1' is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock"),
        (
            '"127.0.0.1:65536"',
            "'127.0.0.1:65536' is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock",
        ),
        ('"127.0.0.256:1"', "'127.0.0.256:1' is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock"),
        ('"::1:9100"', "'::1:9100' is not an address; write it like 127.0.0.1:9100, or unix:/run/name.sock"),
        ('"unix:run/x"', "'unix:run/x' is no socket; write unix: and an absolute path of at most 107 bytes"),
        ('["127.0.0.1:1", "127.0.0.1:1"]', "names one address twice; remove one of them"),
        ("9100", "is a number; write text in quotes"),
    ],
)
def test_addresses_that_are_none(value: str, problem: str) -> None:
    assert problems(service(f"listen = {value}")) == [f"h.toml:4: [service] listen: {problem}"]


def test_a_socket_has_a_short_path() -> None:
    assert load(service(f'listen = "unix:/{"x" * 106}"')).service.listen
    (problem,) = problems(service(f'listen = "unix:/{"x" * 107}"'))
    assert problem.endswith("is no socket; write unix: and an absolute path of at most 107 bytes")


def test_others_may_be_let_in() -> None:
    assert load(service('listen = "0.0.0.0:9100"\nlisten-public = true')).service.listen == ("0.0.0.0:9100",)


def test_the_text_file_lies_beside_the_configuration() -> None:
    text = service('textfile = "x.prom"')
    assert load_config(text, source="/etc/h/h.toml").service.textfile == "/etc/h/x.prom"
    assert load_config(service('textfile = "/x.prom"'), source="/etc/h/h.toml").service.textfile == "/x.prom"


# --- scrub -------------------------------------------------------------------------------------------------------


def test_nothing_is_scrubbed_unless_it_is_said() -> None:
    assert load(MINIMAL).scrub.enabled is False
    scrub = load(MINIMAL + '[scrub]\nenabled = true\nbytes-per-second = "5MiB"\nevery-days = 7\n').scrub
    assert (scrub.enabled, scrub.bytes_per_second, scrub.every_days) == (True, 5 << 20, 7.0)


def test_a_scrub_without_a_budget_is_refused() -> None:
    found = problems(MINIMAL + '[scrub]\nenabled = "yes"\nbytes-per-second = 0\nevery-days = 0\n')
    assert [problem.split(": ")[1] for problem in found] == [
        "[scrub] enabled", "[scrub] bytes-per-second", "[scrub] every-days"
    ]  # fmt: skip


def test_logs_count_from_the_files_folder_which_is_no_pattern() -> None:
    text = '[mirror]\ndirectory = "x"\n[stats]\nlogs = ["access.log*", "/var/log/*/pypi.log", "~/one.log"]\n'
    config = load_config(text, source="/etc/a[1]/heliostat.toml", environ={"HOME": "/home/me"})
    assert config.stats.logs == ("/etc/a[[]1]/access.log*", "/var/log/*/pypi.log", "/home/me/one.log")


def test_mirrors_are_names_and_urls() -> None:
    text = '[mirror]\ndirectory = "x"\n[mirrors]\nfra = "https://fra.example/simple-copy/"\nhere = "http://127.0.0.1:8080"\n'
    loaded = load_config(text, source="h.toml")
    assert loaded.mirrors == (("fra", "https://fra.example/simple-copy"), ("here", "http://127.0.0.1:8080"))
    assert load_config('[mirror]\ndirectory = "x"\n', source="h.toml").mirrors == ()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('fra = "https://u:p@fra.example"', "[mirrors] fra: 'https://fra.example' cannot be published"),
        ('fra = "http://fra.example"', "[mirrors] fra: 'http://fra.example' is not encrypted; use https, or set"),
        ("fra = 7", "[mirrors] fra: is a number; write text in quotes"),
        ('"a/b" = "https://fra.example"', "[mirrors] 'a/b': is no name for a mirror"),
        ('a = "https://x.example"\nb = "https://x.example/"', "[mirrors] b: names a URL that another one has"),
    ],
)
def test_mirrors_that_are_refused(lines: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(f'[mirrors]\n{lines}\n[mirror]\ndirectory = "x"\n', source="h.toml")
    (found,) = caught.value.problems
    assert problem in found
    assert found.startswith("h.toml:")


async def test_what_stands_for_a_secret_is_never_sent() -> None:
    text = (
        '[mirror]\ndirectory = "/srv/pypi"\n[upstream]\nurl = ["https://u:${P}@one.example", "${WHOLE}"]\n'
        'proxy = "http://${PROXY}"\n[push]\nsecret = "${S}"\ndownstream = ["${D}"]\n'
    )
    with pytest.raises(ConfigError) as strict:
        load_config(text, source="/etc/h.toml", environ={})
    found = load_config(text, source="/etc/h.toml", environ={}, secrets=False)
    assert len(found.unset) == 5
    assert set(found.unset) <= set(strict.value.problems)
    with pytest.raises(ConfigError, match="P is not set"):
        found.require_secrets()
    for url in found.upstream.url:
        alone = dataclasses.replace(found.upstream, url=(url,), proxy=None)
        with pytest.raises(ConfigError, match=r"\[upstream\] url: the environment variable (P|WHOLE) is not set"):
            await Upstream(alone, version="1").__aenter__()
    with pytest.raises(ConfigError, match=r"\[upstream\] proxy: the environment variable PROXY is not set"):
        await Upstream(dataclasses.replace(found.upstream, url=("https://one.example",)), version="1").__aenter__()
    whole = load_config(
        text, source="/etc/h.toml", environ={"P": "x", "S": "x" * 16, "D": "https://two.example/ping"}, secrets=False
    )
    assert len(whole.unset) == 2  # of url and proxy
