"""Anybody who listens; see attacking.py."""

import socket

from attacking import attack


@attack
def connect_by_tcp(world):
    socket.create_connection(("127.0.0.1", world.tcp_port), timeout=2)
    return "connected"


@attack
def connect_by_tcp_to_all_addresses(world):
    socket.create_connection(("0.0.0.0", world.tcp_port), timeout=2)
    return "connected"


@attack
def send_by_udp(world):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(
        b"attack", ("127.0.0.1", world.udp_port)
    )
    return None  # the host looks whether it has come


@attack
def connect_to_a_unix_socket(world):
    socket.socket(socket.AF_UNIX).connect(world.unix_socket)
    return "connected"


@attack
def connect_to_an_abstract_socket(world):
    socket.socket(socket.AF_UNIX).connect("\0" + world.abstract_socket)
    return "connected"


@attack
def connect_to_the_desktop(world):
    found = []
    for path in ("/run/dbus/system_bus_socket", "/tmp/.X11-unix/X0", "/run/docker.sock"):
        try:
            socket.socket(socket.AF_UNIX).connect(path)
            found.append(path)
        except OSError:
            pass
    return found


@attack
def talk_to_the_hypervisor(world):
    return socket.socket(40, socket.SOCK_STREAM) and "AF_VSOCK"


@attack
def see_raw_packets(world):
    return socket.socket(17, socket.SOCK_RAW) and "AF_PACKET"


@attack
def use_rare_protocols(world):
    found = []
    for family in (*range(3, 10), *range(11, 16), *range(17, 46)):
        try:
            socket.socket(family, socket.SOCK_DGRAM).close()
            found.append(family)
        except OSError:
            pass
    return found
