"""Packets that come late, out of order, twice, or through a narrow link: a user-space mirror.

This process owns a network device. It sends packets to `FAR` back with source and destination
swapped, so that they arrive at the same port of `NEAR`, this machine, as if from `FAR`. Both
directions of a connection pass here, and the kernel's own TCP has to cope. The swap changes no
checksum. Only for a network namespace of its own; the device ends with it.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import subprocess
import threading
import time
from dataclasses import dataclass

from tests.support.chaos import network

NEAR, FAR = "10.99.0.1", "10.99.0.2"
DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUN_WITHOUT_HEADER = 0x400454CA, 0x1001
_IDLE_S = 0.1
LONGEST_QUEUE_S = 0.5
"""Packets that would wait longer for a narrow link are dropped, as a switch does."""


@dataclass(frozen=True, kw_only=True)
class Packets:
    """What becomes of them. The default: nothing."""

    delay_s: float = 0.0
    jitter_s: float = 0.0  # each packet's own, to either side: they overtake each other
    duplicate_ratio: float = 0.0
    bytes_per_s: float = 0.0  # of both directions together; 0: as fast as they come


class Mirror:
    """The device and its thread. Counts what it did."""

    def __init__(self, *, seed: int = 0):
        assert network.is_ours(), "not in the namespace of everybody else"
        self.packets = Packets()
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self._due: list[tuple[float, int, bytes]] = []
        self._free_s = 0.0
        self._newest = -1
        self.passed = self.reordered = self.duplicated = self.dropped = 0
        self._file = os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._file, _TUNSETIFF, struct.pack("16sH", b"mirror0", _TUN_WITHOUT_HEADER))
        for words in (f"address add {NEAR}/24 dev mirror0", "link set mirror0 up"):
            subprocess.run(["ip", *words.split()], check=True, timeout=20)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else _IDLE_S
            if select.select([self._file], [], [], wait_s)[0]:
                self._take(os.read(self._file, 65536))
            while self._due and self._due[0][0] <= time.monotonic():
                self._give(*heapq.heappop(self._due)[1:])

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return  # the kernel says hello in IPv6
        packets, now_s = self.packets, time.monotonic()
        copies = 1 + (self._random.random() < packets.duplicate_ratio)
        self.duplicated += copies - 1
        for _ in range(copies):
            due_s = now_s + packets.delay_s
            due_s += self._random.uniform(-packets.jitter_s, packets.jitter_s)
            if packets.bytes_per_s:
                if self._free_s - now_s > LONGEST_QUEUE_S:
                    self.dropped += 1
                    continue
                self._free_s = max(now_s, self._free_s) + len(packet) / packets.bytes_per_s
                due_s = max(due_s, self._free_s)
            heapq.heappush(self._due, (due_s, next(self._numbers), packet))

    def _give(self, number: int, packet: bytes) -> None:
        self.passed += 1
        self.reordered += number < self._newest
        self._newest = max(number, self._newest)
        os.write(self._file, packet[:12] + packet[16:20] + packet[12:16] + packet[20:])
