"""Make a profile and a listening socket, then become the browser.

Run as a script by whatever Python there is, inside bubblewrap or not, so of the standard library
alone. The socket's descriptor goes back through a Unix socket: inside bubblewrap, where loopback is
the only network, who accepts on it from outside is all that the browser can reach.

    starter.py CHANNEL_FD FROM_FD TO_FD PROFILE PREFERENCES COMMAND...

The browser reads commands from FROM_FD and answers on TO_FD. "PROXY_PORT" in the command is
replaced by the socket's port.
"""

import fcntl
import os
import socket
import sys

PORT_WORD = "PROXY_PORT"
_ITS_DESCRIPTORS = (3, 4)
"""Where --remote-debugging-pipe expects the two."""
_ABOVE = 10


def main() -> None:
    """Does not return."""
    channel_fd, *pipe_fds = (fcntl.fcntl(int(arg), fcntl.F_DUPFD, _ABOVE) for arg in sys.argv[1:4])
    profile, preferences, command = sys.argv[4], sys.argv[5], sys.argv[6:]
    os.makedirs(f"{profile}/Default", exist_ok=True)
    with open(f"{profile}/Default/Preferences", "w", encoding="utf-8") as file:
        file.write(preferences)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    with socket.socket(fileno=channel_fd) as channel:
        socket.send_fds(channel, [b"1"], [listener.fileno()])
    listener.close()
    for descriptor, wanted in zip(pipe_fds, _ITS_DESCRIPTORS, strict=True):
        os.dup2(descriptor, wanted, inheritable=True)
        os.close(descriptor)
    os.closerange(_ITS_DESCRIPTORS[-1] + 1, 256)
    os.execv(command[0], [word.replace(PORT_WORD, str(port)) for word in command])


if __name__ == "__main__":
    main()
