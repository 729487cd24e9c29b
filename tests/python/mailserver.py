"""A mail server that keeps nothing: prints its port, then each mail as one line of JSON."""

import asyncio
import email
import email.policy
import json
import sys

from aiosmtpd.smtp import SMTP


class Printer:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        line = {
            "sender": envelope.mail_from,
            "recipients": envelope.rcpt_tos,
            "fields": [[name, str(value)] for name, value in mail.items()],
            "text": mail.get_content(),
        }
        print(json.dumps(line), flush=True)
        return "250 taken"


async def main(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: SMTP(Printer(), hostname="localhost", enable_SMTPUTF8=True, loop=loop),
        "127.0.0.1",
        port,
    )
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    # Ends with the test, however that ends.
    await loop.run_in_executor(None, sys.stdin.read)


asyncio.run(main(int(sys.argv[1])))
