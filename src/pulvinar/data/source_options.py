"""Options of a data source that stand behind its path: `FOLDER?size=96&skip_corrupt=true`."""

from urllib.parse import parse_qsl

from pulvinar.errors import ConfigError


def read_options(text: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """`PATH?a=1&b=2` as the path and its options; `ConfigError` lists options that are not known."""
    place, _, query = text.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [key for key in options if key not in known]
    if unknown or (query and not options):
        raise ConfigError(f"{place}: '{', '.join(unknown) or query}' is not an option; there are: {', '.join(known)}")
    return place, options


def whole_number(name: str, text: str) -> int:
    """Text as a whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise ConfigError(f"{name} is a whole number above 0, not '{text}'")
    return int(text)


def yes_or_no(name: str, text: str) -> bool:
    """'true' or 'false' as a truth value."""
    words = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in words:
        raise ConfigError(f"{name} is true or false, not '{text}'")
    return words[text.lower()]
