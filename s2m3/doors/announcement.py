"""Announces the Wyoming door on the network (mDNS, `_wyoming._tcp.local.`), so that Home Assistant finds it."""

import ipaddress
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import structlog
from zeroconf import Error
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

__all__ = ["announced"]

_log = structlog.get_logger(__name__)
_TYPE = "_wyoming._tcp.local."
#: Multicast DNS's group: the local address of the route to it is announced. Nothing is sent there.
_GROUP = ("224.0.0.251", 5353)


def _own_address(bind: str) -> str:
    """Returns the address that others reach: the local address of the outgoing route if the door listens on all."""
    if not ipaddress.ip_address(bind).is_unspecified:
        return bind
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(_GROUP)
        address: str = probe.getsockname()[0]
        return address


@asynccontextmanager
async def announced(bind: str, port: int) -> AsyncGenerator[None, None]:
    """Announces the door as long as the context lasts; logs it if the network has no multicast.

    Args:
        bind: The address that the door listens on.
        port: Its port.
    """
    try:
        address = _own_address(bind)
        network = AsyncZeroconf(interfaces=[address])
    except OSError as error:
        _log.warning("not_announced", why=str(error))
        yield
        return
    name = f"s2m3-{socket.gethostname().split('.')[0]}-{port}.{_TYPE}"
    service = AsyncServiceInfo(_TYPE, name, addresses=[ipaddress.ip_address(address).packed], port=port)
    try:
        await network.async_register_service(service, allow_name_change=True)
        _log.info("announced", name=service.name, address=address, port=port)
    except (Error, OSError) as error:
        _log.warning("not_announced", why=repr(error))
    try:
        yield
    finally:
        await network.async_unregister_all_services()
        await network.async_close()
