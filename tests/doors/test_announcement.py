"""The network is told of the Wyoming door, as Home Assistant's discovery reads it, and told when it closes."""

import asyncio

from zeroconf import ServiceStateChange
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from s2m3.doors.announcement import announced

TYPE = "_wyoming._tcp.local."
PORT = 10_987


async def seen_and_gone() -> AsyncServiceInfo:
    here, gone = asyncio.Event(), asyncio.Event()
    names: list[str] = []

    def on_change(name: str, state_change: ServiceStateChange, **_: object) -> None:
        if f"-{PORT}." not in name:  # of another site on this machine
            return
        names.append(name)
        (gone if state_change is ServiceStateChange.Removed else here).set()

    listener = AsyncZeroconf(interfaces=["127.0.0.1"])
    browser = AsyncServiceBrowser(listener.zeroconf, TYPE, handlers=[on_change])
    try:
        async with asyncio.timeout(60):
            async with announced("127.0.0.1", PORT):
                await here.wait()
                info = AsyncServiceInfo(TYPE, names[0])
                while not await info.async_request(listener.zeroconf, 3_000):
                    continue
            await gone.wait()
    finally:
        await browser.async_cancel()
        await listener.async_close()
    return info


def test_the_door_is_announced_with_its_address_and_its_end_is_told() -> None:
    info = asyncio.run(seen_and_gone())
    assert info.port == PORT
    assert info.parsed_addresses() == ["127.0.0.1"]
