"""All rows of the table of families."""

from tests.families.family import Family

__all__ = ["FAMILIES"]

FAMILIES: list[Family] = []
