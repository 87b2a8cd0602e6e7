"""S2M3 on MQTT: split-and-share multi-modal models on the devices you own. `from s2m3 import Client` asks.

What is named here is public. Each name is imported when it is first used: an agent or a planner, whose modules lie in
this package too, loads nothing of the client.
"""

from importlib import import_module

#: Type checkers take it as typing's, whose import would cost the supervisor a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from s2m3.broker.requests.stream_assembler import TextDelta
    from s2m3.client import Answer, Client, Reply, Stream
    from s2m3.schemas.errors import (
        BadDefinitionError,
        BadInputError,
        BrokerUnreachableError,
        BusyError,
        ModuleFailedError,
        NameTakenError,
        NoCapacityError,
        NotInstalledError,
        NotReadyError,
        RequestTimeoutError,
        S2M3Error,
        TooLargeError,
        UnauthorisedError,
        UndeliverableError,
        UnknownTaskError,
        UnsupportedCheckpointError,
    )
    from s2m3.schemas.settings import BrokerSettings

__all__ = [
    "Answer",
    "BadDefinitionError",
    "BadInputError",
    "BrokerSettings",
    "BrokerUnreachableError",
    "BusyError",
    "Client",
    "ModuleFailedError",
    "NameTakenError",
    "NoCapacityError",
    "NotInstalledError",
    "NotReadyError",
    "Reply",
    "RequestTimeoutError",
    "S2M3Error",
    "Stream",
    "TextDelta",
    "TooLargeError",
    "UnauthorisedError",
    "UndeliverableError",
    "UnknownTaskError",
    "UnsupportedCheckpointError",
]

if not TYPE_CHECKING:  # else every misspelt name would be an Any to type checkers
    _HOMES = dict.fromkeys(("Answer", "Client", "Reply", "Stream"), "s2m3.client")
    _HOMES |= {name: "s2m3.schemas.errors" for name in __all__ if name.endswith("Error")}
    _HOMES |= {"BrokerSettings": "s2m3.schemas.settings", "TextDelta": "s2m3.broker.requests.stream_assembler"}

    def __getattr__(name: str) -> object:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(home), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
