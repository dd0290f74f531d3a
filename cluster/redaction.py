"""Secrets taken out of text that leaves the hosts: logs, configuration, what programs answer.

It errs on the side of taking out too much. Public parts stay: certificates, digests, names of Secrets.
"""

from __future__ import annotations

import base64
import binascii
import re

REMOVED = "[removed]"

_BEGIN, _END = r"-----BEGIN [A-Z ]*PRIVATE KEY-----", r"-----END [A-Z ]*PRIVATE KEY-----"
_KEYS = re.compile(rf"{_BEGIN}(?:(?!-----).){{0,8000}}(?:{_END})?", re.DOTALL)
_REST = re.compile(_END)
# A line of base64, the last of one too; what a log puts before it may be anything.
_BODY = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}\s*$")
# "-----BEGIN " in base64, as kubeconfigs hold certificates and keys.
_PACKED = re.compile(r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]+")

_VALUE = (
    r"""(?:\\"[^"\\]*\\"|"(?:\\.|[^"\\\n])*"|'[^'\n]*'|\[[^\]\n]*\]|(?:Basic|Bearer|Negotiate)\s+[^\s"',;]+"""
    r"""|[^\s"',;{}\[\]]+)"""
)
_NAMES = (
    r"(?:password|passwd|passphrase|auth_pass|secret|token|client-key-data|certificate[-_]?key|private[-_]?key"
    r"|api[-_]?key|access[-_]?key|credentials?|authorization|auth|dockerconfigjson|dockercfg)"
)
_SAID = re.compile(
    rf"""(?P<name>{_NAMES}\\?["']?[^\S\n]*[:=][^\S\n]*)(?!(?:true|false|null)\b){_VALUE}""", re.IGNORECASE
)
# Words that have their value after a space: flags, and those of keepalived.conf and haproxy.cfg.
_WORDS = re.compile(
    r"(?P<name>(?:--[\w-]*(?:token|password|secret|certificate-key)|\bauth_pass|\bstats[^\S\n]+auth"
    rf"|\b(?:insecure-)?password)[^\S\n]+){_VALUE}",
    re.IGNORECASE,
)
_CERTIFICATE_KEY = re.compile(r"certificate[-_ ]?key\b", re.IGNORECASE)
_DIGITS = re.compile(r"\b[0-9a-f]{64}\b", re.IGNORECASE)
_ENVIRONMENT = re.compile(r"(?P<name>\b(?:Environment|SetCredential\w*)[^\S\n]*=)(?:[^\n]*\\\n)*[^\n]*")
# Of TOML and JSON, in one line or several, such as CRI-O's default_env.
_LIST = re.compile(
    r"""(?P<name>\b(?:default_)?env["']?\s*[:=]\s*\[)(?=\s*["'])(?:[\s,]|"(?:\\.|[^"\\])*"|'[^']*'|\#[^\n]*)*"""
)
_LOGIN = re.compile(r"(?P<name>://)[^\s/@\"']+@")
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?")
# https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/#token-format
_BOOTSTRAP = re.compile(r"(?<![A-Za-z0-9])[a-z0-9]{6}\.[a-z0-9]{16}(?![A-Za-z0-9])")

_IS_SECRET = re.compile(r"\bkind\W{1,6}Secret\b")
_OBJECT = re.compile(r"(?P<name>\\?\"(?:data|stringData)\\?\":\s*)\{[^{}]*\}")
_BLOCK = re.compile(r"(?m)^(?P<indent>\s*)(?P<name>data|stringData):[^\S\n]*\n(?:(?P=indent)[^\S\n]+[^\n]*(?:\n|\Z))+")

# Variables of the environment, whatever their names. In JSON it is any `value`, also where it is inside a string; in
# YAML's flow style likewise; Go's own words are how the kubelet logs a container that does not start.
_JSON_VALUE = re.compile(
    r"""(?P<head>\bvalue(?P<quote>\\*")\s*:\s*)"""
    r"""(?:"(?:\\.|[^"\\\n])*"|\\+"[^\n]*?(?<!\\)(?P=quote)|\\*"[^\n]*|[^\s{\[,}"\\][^,}\n]*)"""
)
_FLOW_VALUE = re.compile(
    r"""(?P<head>[{,]\s*'?value'?:[^\S\n]+)(?:"(?:\\.|[^"\\\n])*"|'(?:''|[^'\n])*'|["'][^\n]*|[^"'\s,}][^,}\n]*)"""
)
_GO_VALUE = re.compile(r"(?P<head>\bEnvVar\{Name:[^,{}\n]*,Value:)[^\n]*?(?=,ValueFrom:|\n|\Z)")
# YAML's block style, line by line. In a string lines end otherwise, and its quotes are a beginning and an end.
_SOME = re.compile(r"""(?:env|extraEnvs)["']?\s*:""")
_VARIABLES = re.compile(r"""[\s\\]*(?:-\s+)*(?P<key>["']?(?:env|extraEnvs)["']?)\s*:\s*(?:#.*)?""")
_VARIABLE = re.compile(r"""[-#\s\\]*(?P<key>["']?value["']?)\s*:""")
_LINES, _LINES_OF_STRINGS = re.compile(r"(\n)"), re.compile(r"""(?<!\\)(\\+n|")""")


def _packed(found: re.Match[str]) -> str:
    """Certificates stay; a key, or what cannot be told, does not."""
    try:
        text = base64.b64decode(found[0], validate=True)
    except binascii.Error:
        return REMOVED
    return REMOVED if b"PRIVATE" in text else found[0]


def _without_rests(text: str) -> str:
    """Without ends of keys whose beginnings were cut off, as where a log's last part was taken."""
    if not _REST.search(text):
        return text
    parts = re.split(r"(\\n|\n)", text)  # lines, and what is between them: newlines, also as JSON writes them
    for at in range(0, len(parts), 2):
        if _REST.search(parts[at]):
            parts[at] = REMOVED
            for before in range(at - 2, -1, -2):
                if not _BODY.search(parts[before]):
                    break
                parts[before] = REMOVED
    return "".join(parts)


def _without_variables(text: str, between: re.Pattern[str]) -> str:
    """Without values below `env` and `extraEnvs` of YAML, whose lines are told by what is between them."""
    parts = between.split(text)  # lines, and what is between them
    below = value = None  # columns of keys
    for at in range(0, len(parts), 2):
        line, words = parts[at], parts[at].lstrip(" \\")
        column = len(line) - len(words)
        if parts[at - 1] == '"':
            below = value = None
        if value is not None and (not words.strip() or column > value):
            parts[at] = ""
            continue
        value = None
        if below is not None and words.strip() and not words.startswith("#"):
            below = below if column > below or (column == below and words.startswith("-")) else None
        if found := _VARIABLES.fullmatch(line):
            below = found.start("key")
        elif below is not None and (found := _VARIABLE.match(line)):
            value, parts[at] = found.start("key"), f"{found[0]} {REMOVED}"
    return "".join(parts)


def _without_certificate_keys(text: str) -> str:
    """They are on the line that names them, or on the next."""
    lines, named = text.split("\n"), False
    for at, line in enumerate(lines):
        before, named = named, bool(_CERTIFICATE_KEY.search(line))
        if before or named:
            lines[at] = _DIGITS.sub(REMOVED, line)
    return "\n".join(lines)


def redact(text: str) -> str:
    """The text without secrets: private keys, tokens, passwords, Secrets' data, variables of the environment."""
    text = _without_rests(_KEYS.sub(REMOVED, text))
    text = _PACKED.sub(_packed, text)
    if _IS_SECRET.search(text):
        text = _OBJECT.sub(rf"\g<name>{REMOVED}", text)
        text = _BLOCK.sub(rf"\g<indent>\g<name>: {REMOVED}\n", text)
    text = _ENVIRONMENT.sub(rf"\g<name>{REMOVED}", text)
    text = _LIST.sub(rf"\g<name>{REMOVED}", text)
    for between in (_LINES, _LINES_OF_STRINGS) if _SOME.search(text) else ():
        text = _without_variables(text, between)
    text = _JSON_VALUE.sub(rf"\g<head>\g<quote>{REMOVED}\g<quote>", text)
    text = _FLOW_VALUE.sub(rf"\g<head>{REMOVED}", text)
    text = _GO_VALUE.sub(rf"\g<head>{REMOVED}", text)
    text = _without_certificate_keys(text)
    text = _SAID.sub(rf"\g<name>{REMOVED}", text)
    text = _WORDS.sub(rf"\g<name>{REMOVED}", text)
    text = _LOGIN.sub(rf"\g<name>{REMOVED}@", text)
    text = _JWT.sub(REMOVED, text)
    return _BOOTSTRAP.sub(REMOVED, text)
