"""A server for the tests of supervision: not CARLA's protocol, but it dies, stalls and lies like a simulator.

Each connection gets a line with the version; then each byte sent is answered by one. What the clients did is
appended to a log: o when one opened its environment, q when one closed it.
"""

import argparse
import socket
import sys
import threading


def serve(connection: socket.socket, version: str, log: str) -> None:
    with connection:
        try:
            connection.sendall(f"{version}\n".encode())
            while byte := connection.recv(1):
                if log and byte in b"oq":
                    with open(log, "ab") as file:
                        file.write(byte)
                connection.sendall(byte)
        except OSError:
            return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--version", default="0.9.16")
    parser.add_argument("--log", default="")
    parser.add_argument("--fail", default="")
    parser.add_argument("--deaf", action="store_true")
    parser.add_argument("--mark", help="to be found by, among all processes")
    options = parser.parse_args()
    if options.fail:
        sys.exit(f"first line\n{options.fail}\n")
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        if options.deaf:
            threading.Event().wait()
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(
                target=serve, args=(connection, options.version, options.log), daemon=True
            ).start()


if __name__ == "__main__":
    main()
