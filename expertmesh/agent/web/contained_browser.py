"""Make a profile and a listening socket within a network of our own, then become the browser.

Run as a script inside bubblewrap, where loopback is the only network: the socket's descriptor goes
back through a Unix socket, and who accepts on it from outside is all that the browser can reach.
Only the standard library, since it is run by whatever Python there is.

    contained_browser.py UNIX_FD PROFILE PREFERENCES COMMAND...

"PROXY_PORT" in the command is replaced by the port.
"""

import os
import socket
import sys

PORT_WORD = "PROXY_PORT"


def main() -> None:
    """Does not return."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    profile, preferences, command = sys.argv[2], sys.argv[3], sys.argv[4:]
    os.makedirs(f"{profile}/Default")
    with open(f"{profile}/Default/Preferences", "w", encoding="utf-8") as file:
        file.write(preferences)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    port = listener.getsockname()[1]
    socket.send_fds(channel, [b"1"], [listener.fileno()])
    listener.close()
    channel.close()
    os.execv(command[0], [word.replace(PORT_WORD, str(port)) for word in command])


if __name__ == "__main__":
    main()
