"""Names that a person gives to profiles and conversations: they become file names and arguments, so few rules apply.

Knows nothing of what is named.
"""

from padlite.errors import UsageError

LONGEST = 100


def check_name(name: str, *, kind: str) -> str:
    """Return *name* if it can name a *kind* ('profile', 'session'), or raise UsageError with the reason.

    Allowed are printable characters of any script and single spaces inside; not allowed are path separators, quotes,
    '=', a leading '.' or '-', and more than 100 bytes.
    """
    reason = _reason_against(name)
    if reason:
        raise UsageError(
            f"this can't be the name of a {kind}: {reason}",
            remedy="use letters, digits, '-' and '_', for example: my-" + kind,
        )
    return name


def _reason_against(name: str) -> str:
    if not name.strip():
        return "it is empty"
    if len(name.encode("utf-8", "replace")) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    if name != " ".join(name.split()):
        return "it starts or ends with a space, or holds two in a row"
    if name.startswith((".", "-")):
        return f"it starts with {name[0]!r}"
    forbidden = [character for character in name if character in "/\\:\"'=`$*?<>|" or not character.isprintable()]
    return f"it holds {forbidden[0]!r}" if forbidden else ""
