"""Ways to a customer: mail by SMTP, SMS through a gateway, and files for trying things out. Each takes one message or says why not."""

from __future__ import annotations

import re
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

import httpx
import orjson

from connectors.prepaid.contacts import Contact
from connectors.subscribers import signing
from connectors.subscribers.channels.files import put
from connectors.subscribers.guard import ForbiddenError, Guard, UnresolvedError
from connectors.subscribers.parcel import AwayError, BrokenError, RefusedError, Sent
from connectors.subscribers.secrets import SecretError, Secrets
from schemas.topology.portal import Mail, Messages, Sms

LONGEST_SMS: Final = 459  # three parts
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True)
class Letter:
    """One message for one customer. ``id`` is the same at every try, so that receivers can tell repeats."""

    id: str
    account: str
    subject: str
    text: str
    at: int  # UTC seconds


class Way(Protocol):
    """A way to customers."""

    kind: str

    def reaches(self, contact: Contact) -> bool:
        """Whether the contact has an address for it."""
        ...

    def send(self, letter: Letter, contact: Contact) -> Sent:
        """Hands a message over. Raises DeliveryError."""
        ...


class MailWay:
    """SMTP, a connection for each message: volumes are those of notices, and a connection that broke breaks one only."""

    kind = "mail"

    def __init__(self, settings: Mail, secrets: Secrets) -> None:
        self.settings, self._secrets = settings, secrets

    def reaches(self, contact: Contact) -> bool:
        """It needs a mail address."""
        return bool(contact.mail)

    def send(self, letter: Letter, contact: Contact) -> Sent:
        """Hands the mail to the server. Its Message-ID is the same at every try."""
        settings = self.settings
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = settings.sender, contact.mail, letter.subject
        mail["Message-ID"] = f"<{letter.id}@{settings.sender.partition('@')[2]}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(letter.text)
        try:
            with self._connect() as server:
                if settings.user is not None and settings.password is not None:
                    server.login(settings.user, self._secrets.get(settings.password).decode(errors="replace"))
                server.send_message(mail)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPDataError, smtplib.SMTPSenderRefused) as error:
            codes = (
                [code for code, _ in error.recipients.values()] if isinstance(error, smtplib.SMTPRecipientsRefused) else [error.smtp_code]
            )
            if all(code >= 500 for code in codes):
                raise RefusedError(f"the mail server refused it with {codes[0]}", codes[0]) from None
            raise AwayError(f"the mail server put it off with {codes[0]}", codes[0]) from None
        except SecretError as error:
            raise AwayError(str(error)) from None
        except (smtplib.SMTPException, OSError) as error:
            raise AwayError(f"mail server: {type(error).__name__}") from None
        return Sent(settings.host, len(mail.as_bytes()), 250)

    def _connect(self) -> smtplib.SMTP:
        settings = self.settings
        if settings.security == "tls":
            return smtplib.SMTP_SSL(settings.host, settings.port, timeout=settings.timeout, context=ssl.create_default_context())
        server = smtplib.SMTP(settings.host, settings.port, timeout=settings.timeout)
        if settings.security == "starttls":
            try:
                server.starttls(context=ssl.create_default_context())
            except BaseException:
                server.close()
                raise
        return server


class SmsWay:
    """A signed POST of ``{id, to, text}`` to a gateway; 2xx is taken. The id makes repeats one message."""

    kind = "sms"

    def __init__(self, settings: Sms, guard: Guard, secrets: Secrets) -> None:
        self.settings, self._guard, self._secrets = settings, guard, secrets
        self._parts = urlsplit(settings.url)
        self._client = httpx.Client(follow_redirects=False, trust_env=False, timeout=settings.timeout)

    def reaches(self, contact: Contact) -> bool:
        """It needs a phone number."""
        return bool(contact.phone)

    def send(self, letter: Letter, contact: Contact) -> Sent:
        """Hands the message to the gateway."""
        body = orjson.dumps({"id": letter.id, "to": re.sub(r"[^+0-9]", "", contact.phone), "text": letter.text[:LONGEST_SMS]})
        scheme, host = self._parts.scheme, self._parts.hostname or ""
        port = self._parts.port or (443 if scheme == "https" else 80)
        try:
            address = self._guard.address(host, port, scheme)
            keys = [self._secrets.signing_key(name) for name in self.settings.secrets]
            headers = signing.headers(keys, letter.id, letter.at, body) | {"host": self._parts.netloc, "content-type": "application/json"}
            if self.settings.token is not None:
                headers["authorization"] = f"Bearer {self._secrets.get(self.settings.token).decode(errors='replace')}"
            url = httpx.URL(self.settings.url).copy_with(host=address, port=port)
            answer = self._client.post(url, content=body, headers=headers, extensions={"sni_hostname": host})
        except (ForbiddenError, UnresolvedError, SecretError) as error:
            raise AwayError(str(error)) from None
        except httpx.HTTPError as error:
            raise AwayError(f"SMS gateway: {type(error).__name__}") from None
        code = answer.status_code
        if answer.is_success:
            return Sent(host, len(body), code)
        if code in (400, 404, 410, 413, 422):
            raise RefusedError(f"the SMS gateway refused it with {code}", code)
        if code >= 500 and code not in (502, 503, 504):
            raise BrokenError(f"the SMS gateway failed with {code}", code)
        raise AwayError(f"the SMS gateway answered {code}", code)


class FolderWay:
    """Messages as files of a folder of the outbox: for demos and for gateways that pick up files."""

    kind = "folder"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def reaches(self, contact: Contact) -> bool:  # noqa: ARG002
        """Everybody."""
        return True

    def send(self, letter: Letter, contact: Contact) -> Sent:
        """Writes the file; the same message is the same file."""
        name = f"{_UNSAFE.sub('_', letter.account)[:80]}-{letter.id}.txt"
        to = contact.mail or contact.phone or letter.account
        data = f"To: {to}\nSubject: {letter.subject}\n\n{letter.text}\n".encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            put(self.folder, name, data)
        except OSError as error:
            raise AwayError(f"{self.folder.name}: {error.strerror or error}") from None
        return Sent(name, len(data))


def ways_of(settings: Messages, secrets: Secrets, guard: Guard, outbox: Path) -> list[Way]:
    """The ways that are set up."""
    found: list[Way] = []
    if settings.mail is not None:
        found.append(MailWay(settings.mail, secrets))
    if settings.sms is not None:
        found.append(SmsWay(settings.sms, guard, secrets))
    if settings.folder is not None:
        found.append(FolderWay(outbox / settings.folder))
    return found
