"""A supervisor over fake servers, as a process of its own: `python -m tests.server.supervised SOCKET OPTIONS`.

OPTIONS is JSON: `max_restarts`, `outlives` (seconds that a server may outlive its supervisor), and the fields of
`Pace`. The first line of its output is the URL that it listens on.
"""

import asyncio
import json
import os
import sys

from loraloom.server.launch import Launch
from loraloom.server.settings import Settings
from loraloom.server.supervisor import Pace, Supervisor, address, listen


def main() -> int:
    options = json.loads(sys.argv[2])
    settings = Settings(model="fake", drain_timeout=0, max_restarts=options.pop("max_restarts"))
    program = (sys.executable, "-m", "tests.server.fake_server")
    launch = Launch((sys.argv[1], str(options.pop("outlives"))), {"GIVEN": "by the launch"}, program=program)
    with listen("127.0.0.1", 0) as listening:
        print(address(listening), flush=True)
        return asyncio.run(Supervisor(settings, launch, os.environ, listening, pace=Pace(**options)).run())


if __name__ == "__main__":
    sys.exit(main())
