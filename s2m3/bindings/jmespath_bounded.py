"""JMESPath with a bound on the work of one message: an expression can build lists and texts that double with each step.

The bound counts the values and characters that an expression visits, so it does not depend on the machine. Pure.
"""

from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import Options, TreeInterpreter

from s2m3.schemas.errors import BadInputError

__all__ = ["Budget", "Expression"]

_LONGEST_EXPRESSION = 1_000
#: Most levels of one expression: evaluating it recurses as deep, and Python's own limit depends on the caller.
_DEEPEST_EXPRESSION = 200
_LONGEST_SAID = 300
#: Most values that the expressions of one message may visit; a device's message has a few hundred.
_MOST_STEPS = 30_000
#: Most characters, besides eight times those of the payload: a picture's base64 may be read, and joined to a prefix.
_MOST_CHARACTERS = 1_000_000
_TIMES_THE_PAYLOAD = 8


class Budget:
    """The values and characters that the expressions of one message may still visit.

    Args:
        size: Size of the payload, bytes.
    """

    def __init__(self, size: int) -> None:
        self._steps = _MOST_STEPS
        self._characters = _MOST_CHARACTERS + _TIMES_THE_PAYLOAD * size

    def charge(self, steps: int, characters: int = 0) -> None:
        """Takes from the budget.

        Raises:
            BadInputError: The budget is used up.
        """
        self._steps -= steps
        self._characters -= characters
        if self._steps < 0 or self._characters < 0:
            raise BadInputError("the expressions are too much work for this payload")

    def charge_whole(self, value: Any) -> None:
        """Takes the cost of a value with all values in it; values that occur several times count each time.

        Raises:
            BadInputError: The budget is used up.
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
        text: The expression.

    Raises:
        BadInputError: The text is not JMESPath, or the expression is too deep.
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
        """Returns the value that the expression finds in a document; None if there is none.

        Raises:
            BadInputError: A function got an argument of a wrong type, or the budget is used up.
        """
        try:
            found = _Interpreter(budget).visit(self._parsed, document)
        except (JMESPathError, RecursionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise BadInputError(f"path {self.text!r}: {_said(error)}") from error
        budget.charge_whole(found)
        return found


def _depth(parsed: Any) -> int:
    """Returns the number of levels of a parsed expression, without recursion: there may be a thousand."""
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
    """JMESPath's functions, which charge the budget for their arguments and results."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._budget = budget

    def call_function(self, function_name: Any, resolved_args: Any) -> Any:
        self._budget.charge_whole(resolved_args)
        found = super().call_function(function_name, resolved_args)
        self._budget.charge_whole(found)
        return found


class _Interpreter(TreeInterpreter):
    """An interpreter that charges the budget for each value found, and for each value built or compared, as a whole."""

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
        """Compares two values; of a text and a number it returns null, as JMESPath says and jmespath.py does not."""
        left, right = (self._built(self.visit(child, value)) for child in node["children"])
        try:
            compared: Any = {**node, "children": [{"type": "literal", "value": side} for side in (left, right)]}
            return super().visit_comparator(compared, value)
        except TypeError:
            return None

    def _built(self, value: Any) -> Any:
        self._budget.charge_whole(value)
        return value
