#!/usr/bin/env python3
"""An example client of verdecmd's admin socket in Python.

    client.py SOCKET [COUNT]

It lists the users with a session, shows a refusal, and follows events until
COUNT of them came (without COUNT: for ever).
"""

import json
import socket
import sys


class Refused(Exception):
    """The master has refused a command, or it failed."""

    def __init__(self, code, end):
        super().__init__(f"{code} {end}")
        self.code, self.end = code, end


class Master:
    """One connection to the cluster master."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8", newline="\n")
        self.events = []  # those that came while a reply was awaited
        self.greeting = self.ask("hello")[1]  # and the connection stays
        self.ask("format json")

    def line(self):
        """The next line: code, mark, and the rest."""
        line = self.lines.readline()
        if not line.endswith("\n"):
            raise ConnectionError("the connection was lost")
        return line[:3], line[3], line[4:-1]

    def ask(self, command):
        """The rows and the last line of the reply, as they came."""
        self.socket.sendall((command + "\n").encode())
        rows = []
        while True:
            code, mark, data = self.line()
            if code[0] == "6":
                self.events.append((code, data))
            elif code[0] == "1":
                pass  # progress
            elif mark == "-":
                rows.append(data)
            elif code[0] == "2":
                return rows, data
            else:
                raise Refused(code, data)

    def records(self, command):
        """The rows and the last line of the reply, decoded."""
        rows, end = self.ask(command)
        return [json.loads(row) for row in rows], json.loads(end)

    def event(self):
        """The next event."""
        while not self.events:
            code, _, data = self.line()
            if code[0] == "6":
                self.events.append((code, data))
        code, data = self.events.pop(0)
        return code, json.loads(data)


def quote(text):
    """One word of a command, of any text."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(escapes.get(c, c) for c in text) + '"'


def main():
    master = Master(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else -1
    print("greeting:", master.greeting)

    users, end = master.records("users")
    for user in users:
        print(f"{user['user']} on server {user['server']}: {user['state']}")

    try:
        master.ask("user " + quote('no "such" user'))
    except Refused as refused:
        why = json.loads(refused.end)
        print(f"refused: {refused.code} {why['status']}: {why['id']}: {why['msg']}")

    # Events after the instant of the list: nothing is missed or comes twice.
    master.ask(f"events on since={end['seq']}")
    print("waiting for events after", end["seq"], flush=True)
    while count != 0:
        code, event = master.event()
        if code == "650":
            print("event:", event["type"], flush=True)
            count -= 1
        elif code == "651":
            print("events were lost: list again", flush=True)
    master.ask("quit")


if __name__ == "__main__":
    main()
