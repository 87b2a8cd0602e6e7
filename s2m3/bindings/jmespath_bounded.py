"""JMESPath with a bound on the work of one message: an expression can build lists and texts that double with each step.

The bound counts what an expression looks at (values and characters), so that it does not depend on the machine. Pure.
"""

from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

from s2m3.schemas.errors import BadInputError

__all__ = ["Budget", "Expression"]

_LONGEST_EXPRESSION = 1_000
#: Levels of one expression: evaluating it recurses as deep, and Python's own limit depends on who calls.
_DEEPEST_EXPRESSION = 200
_LONGEST_SAID = 300
#: Values that the expressions of one message may look at; a device's message has a few hundred.
_MOST_STEPS = 30_000
#: Characters, besides eight times those of the payload: a picture's base64 may be looked at, and joined to a prefix.
_MOST_CHARACTERS = 1_000_000
_TIMES_THE_PAYLOAD = 8


class Budget:
    """What the expressions of one message may still look at.

    Args:
        size: Of the payload, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._steps = _MOST_STEPS
        self._characters = _MOST_CHARACTERS + _TIMES_THE_PAYLOAD * size

    def charge(self, steps: int, characters: int = 0) -> None:
        """Takes some of it.

        Raises:
            BadInputError: Nothing is left.
        """
        self._steps -= steps
        self._characters -= characters
        if self._steps < 0 or self._characters < 0:
            raise BadInputError("the expressions are too much work for this payload")

    def charge_whole(self, value: Any) -> None:
        """Takes what it costs to look at a value with all that is in it, as often as it is in it.

        Raises:
            BadInputError: Nothing is left.
        """
        waiting = [value]
        while waiting:
            found = waiting.pop()
            if isinstance(found, list):
                waiting += found
                self.charge(1 + len(found))
            elif isinstance(found, dict):
                waiting += found.values()
                self.charge(1 + len(found))
            else:
                self.charge(1, len(found) if isinstance(found, str) else 0)


class Expression:
    """One JMESPath expression.

    Args:
        text: As it was written.

    Raises:
        BadInputError: It is not JMESPath, or too long.
    """

    def __init__(self, text: str) -> None:
        if len(text) > _LONGEST_EXPRESSION:
            raise BadInputError(f"a path of {len(text)} characters is over the limit of {_LONGEST_EXPRESSION}")
        self.text = text
        try:
            self._parsed: Any = jmespath.compile(text).parsed
        except (JMESPathError, RecursionError) as error:
            raise BadInputError(f"path {text!r} is not JMESPath: {_said(error)}") from error
        if _depth(self._parsed) > _DEEPEST_EXPRESSION:
            raise BadInputError(f"path {text[:40]!r}… is nested more than {_DEEPEST_EXPRESSION} levels deep")

    def search(self, document: Any, budget: Budget) -> Any:
        """Returns what the expression finds in a document; None for nothing.

        Raises:
            BadInputError: A function does not take what it was given, or the budget is used up.
        """
        try:
            found = _Interpreter(budget).visit(self._parsed, document)
        except (JMESPathError, RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise BadInputError(f"path {self.text!r}: {_said(error)}") from error
        budget.charge_whole(found)
        return found


def _depth(parsed: Any) -> int:
    """Returns how many levels a parsed expression has, without recursion: it may have a thousand."""
    deepest, waiting = 0, [(parsed, 1)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting += [(child, depth + 1) for child in node.get("children", ()) if isinstance(child, dict)]
    return deepest


def _said(error: Exception) -> str:
    """Returns an error's text in one line: JMESPath's hold the value itself, a picture or half a character."""
    words = " ".join(str(error)[:_LONGEST_SAID].split())
    return words.encode(errors="replace").decode()


class _Functions(Functions):
    """JMESPath's functions, which charge for all that they are given and all that they return."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def call_function(self, function_name: Any, resolved_args: Any) -> Any:
        self._budget.charge_whole(resolved_args)
        found = super().call_function(function_name, resolved_args)
        self._budget.charge_whole(found)
        return found


class _Interpreter(TreeInterpreter):
    """Charges for each value that is found, and for the whole of what is built or compared."""

    def __init__(self, budget: Budget) -> None:
        super().__init__(Options(custom_functions=_Functions(budget)))
        self._budget = budget

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().visit(node, *args, **kwargs)
        self._budget.charge(1 + len(found) if isinstance(found, list | dict) else 1)
        return found

    def visit_multi_select_list(self, node: Any, value: Any) -> Any:
        return self._built(super().visit_multi_select_list(node, value))

    def visit_multi_select_dict(self, node: Any, value: Any) -> Any:
        return self._built(super().visit_multi_select_dict(node, value))

    def visit_comparator(self, node: Any, value: Any) -> Any:
        """Compares; a text and a number have no order: JMESPath's word for that is null, jmespath.py raises."""
        left, right = (self._built(self.visit(child, value)) for child in node["children"])
        try:
            compared: Any = {**node, "children": [{"type": "literal", "value": side} for side in (left, right)]}
            return super().visit_comparator(compared, value)
        except TypeError:
            return None

    def _built(self, value: Any) -> Any:
        self._budget.charge_whole(value)
        return value
