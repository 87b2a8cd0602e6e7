"""`python -m s2m3.hashed_requirements`: pip's installation report as requirements with hashes, for further devices.

Further devices get the same packages as the first one, byte for byte. It downloads nothing and installs nothing.
"""

import json
import re
import sys
from typing import Any

from s2m3.schemas.errors import BadInputError

__all__ = ["hashed_lines", "main"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PLAIN = re.compile(r"[\w.+!-]+")


def hashed_lines(report: Any) -> list[str]:
    """Returns a line `name==version --hash=sha256:…` per package of a report, sorted by name.

    Args:
        report: The JSON of `pip install --report`, whose format version is 1. A package from a folder (this one, of a
            checkout) has no hash, and becomes a comment.

    Raises:
        BadInputError: The text is no such report, or a package has no SHA-256.
    """
    try:
        if report["version"] != "1":
            raise BadInputError(f"the report has version {report['version']!r}; version 1 is read")
        return sorted(_line(item["metadata"], item["download_info"]) for item in report["install"])
    except (KeyError, TypeError) as error:
        raise BadInputError("that is no report of pip install --report") from error


def _line(metadata: dict[str, Any], download: dict[str, Any]) -> str:
    named = f"{metadata['name']}=={metadata['version']}"
    if not all(_PLAIN.fullmatch(metadata[key]) for key in ("name", "version")):
        raise BadInputError(f"{named[:80]!r} is no name and version")
    if "dir_info" in download:
        return f"# {named} was installed from a folder: no hash"
    archive = download["archive_info"]
    # the second form is pip 23.0's, Debian 12's
    found = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix("sha256=")
    if not _SHA256.fullmatch(found):
        raise BadInputError(f"the report has no SHA-256 of {named}")
    return f"{named} --hash=sha256:{found}"


def _read() -> Any:
    try:
        return json.load(sys.stdin)
    except ValueError as error:
        raise BadInputError(f"that is no JSON: {error}") from error


def main() -> None:
    """Reads a report on stdin and writes the lines to stdout. Exit code 2 where it is none."""
    try:
        lines = hashed_lines(_read())
    except BadInputError as error:
        sys.stderr.write(f"s2m3: {error}\n")
        sys.exit(2)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
