from __future__ import annotations
from typing_extensions import TypedDict
class Environment(TypedDict):
    threads: int
    device: str
    device_name: str
    precision: str
    deterministic: bool
    versions: dict[str, str]
    platform: str
    data: dict[str, str]
