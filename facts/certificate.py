"""A certificate on disk."""

from __future__ import annotations

import shlex
from typing import Literal, TypedDict, cast

from pyinfra.api import FactBase


class CertificateState(TypedDict):
    state: Literal["absent", "valid", "ending", "other"]
    not_after: str | None


class Certificate(FactBase[CertificateState]):
    """Whether a certificate is there, is for this address, and when it ends.

    ::

        {"state": "valid", "not_after": "Nov 23 01:02:03 2036 GMT"}

    `state` is "absent" where there is no file, "other" when it is no certificate or one for another address, "ending"
    when it ends within 30 days. The key beside it (`.key` for `.crt`) must be there and fit.
    """

    @staticmethod
    def default() -> CertificateState:
        return CertificateState(state="absent", not_after=None)

    def command(self, path: str, address: str) -> str:
        crt, key = shlex.quote(path), shlex.quote(f"{path.removesuffix('.crt')}.key")
        public = f'p=$(openssl x509 -in {crt} -noout -pubkey) && test "$p" = "$(openssl pkey -in {key} -pubout)"'
        return (
            f"if test -e {crt} && test -e {key}; then ( {public} && "
            f"openssl x509 -in {crt} -noout -checkip {shlex.quote(address)} | grep -q 'does match' && "
            f"{{ openssl x509 -in {crt} -noout -checkend 2592000 >/dev/null && echo valid || echo ending; }} && "
            f"openssl x509 -in {crt} -noout -enddate ) 2>/dev/null || echo other; fi"
        )

    def process(self, output: list[str]) -> CertificateState:
        state = output[0].strip()
        if state not in ("valid", "ending", "other"):
            raise ValueError(f"not an answer of this fact: {state!r}")
        dates = [line.partition("=")[2] for line in output if line.startswith("notAfter=")]
        return CertificateState(
            state=cast('Literal["valid", "ending", "other"]', state), not_after=next(iter(dates), None)
        )
