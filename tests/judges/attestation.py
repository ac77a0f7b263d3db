#!/usr/bin/env python3
"""Asks two libraries that nobody here wrote whether an attestation of ours is what it claims to be.

    attestation.py FILE PUBLIC_KEY_HEX

FILE is a DSSE envelope as JSON. It must

  1. verify with securesystemslib under the ed25519 key, as one signature of one,
  2. hold an in-toto Statement v1 that in_toto_attestation accepts, written as that library reads it,
  3. hold a predicate that parses as SLSA provenance v1 with no field that the schema does not know,

and each of 20 mutations or more must be refused by securesystemslib, 20 others or more by in_toto_attestation itself, and a few by what
we ask for beyond that. Exits 0 when all of this holds, 1 when
something does not, 2 on wrong usage or where a library is missing. Install the judges into a virtual environment:

    python3 -m venv VENV && VENV/bin/pip install securesystemslib in-toto-attestation cryptography

This program does not check what the statement means; artel-verify does.
"""

import base64
import copy
import json
import re
import sys

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    import in_toto_attestation.predicates.provenance.v1.provenance_pb2 as provenance_pb2
    import in_toto_attestation.v1.statement_pb2 as statement_pb2
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey
except ImportError as missing:
    print(f"judge: {missing}; see the head of this file for what to install", file=sys.stderr)
    sys.exit(2)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PROVENANCE = "https://slsa.dev/provenance/v1"
# Test 1 of RFC 8032: a key that signed nothing of ours.
STRANGER = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
# Mutations that each of the two libraries must be shown, at least.
MUTATIONS_MIN = 20
TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")


class Refused(Exception):
    """A judge said no."""


def check_signature(document, key_hex):
    """securesystemslib: one valid signature by this key; gives the payload that it covers."""
    key = key_of(key_hex)
    try:
        envelope = Envelope.from_dict(copy.deepcopy(document))
        accepted = envelope.verify([key], 1)
    except Exception as error:  # Each kind of refusal is an exception of its own there.
        raise Refused(f"securesystemslib: {type(error).__name__}: {error}") from error
    if list(accepted) != [key.keyid]:
        raise Refused(f"securesystemslib accepted {list(accepted)}, expected {key.keyid}")
    if envelope.payload_type != PAYLOAD_TYPE:
        raise Refused(f"payload type is {envelope.payload_type}")
    return envelope.payload


def key_of(key_hex):
    """The key under the key id that securesystemslib itself computes."""
    return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(key_hex)))


def check_by_library(payload):
    """in_toto_attestation alone: the Statement validates, and its predicate parses as the schema's own message type."""
    try:
        message = json_format.Parse(payload, statement_pb2.Statement())
        Statement.copy_from_pb(message).validate()
        provenance = json_format.ParseDict(json.loads(payload)["predicate"], provenance_pb2.Provenance())
    except Exception as error:
        raise Refused(f"in_toto_attestation: {type(error).__name__}: {error}") from error
    return message, provenance


def check_statement(payload):
    """in_toto_attestation, and what we ask for beyond that."""
    message, provenance = check_by_library(payload)
    if message.predicate_type != PROVENANCE:
        raise Refused(f"predicate type is {message.predicate_type}")
    for subject in message.subject:
        for algorithm in ("sha256", "blake3"):
            if not re.fullmatch("[0-9a-f]{64}", subject.digest.get(algorithm, "")):
                raise Refused(f"subject {subject.name} has no {algorithm}")
    definition, details = provenance.build_definition, provenance.run_details
    if not definition.build_type or not definition.external_parameters or not details.builder.id:
        raise Refused("SLSA provenance: buildType, externalParameters and builder.id are required")
    times = json.loads(payload)["predicate"]["runDetails"]["metadata"]
    for field in ("startedOn", "finishedOn"):
        if not TIME.match(times[field]):
            raise Refused(f"{field} is not YYYY-MM-DDThh:mm:ssZ")
    return message


def judge(document, key_hex):
    """All judges, in order; gives the statement."""
    return check_statement(check_signature(document, key_hex))


def payload_of(document):
    return json.loads(base64.b64decode(document["payload"]))


def with_payload(document, change):
    """The same envelope around a changed statement; the signature is left as it was."""
    statement = payload_of(document)
    change(statement)
    changed = copy.deepcopy(document)
    changed["payload"] = base64.b64encode(json.dumps(statement, separators=(",", ":")).encode()).decode()
    return changed


def with_envelope(document, change):
    changed = copy.deepcopy(document)
    change(changed)
    return changed


def flipped_signature(document):
    raw = bytearray(base64.b64decode(document["signatures"][0]["sig"]))
    raw[10] ^= 1
    document["signatures"][0]["sig"] = base64.b64encode(raw).decode()


def cut_signature(document):
    raw = base64.b64decode(document["signatures"][0]["sig"])
    document["signatures"][0]["sig"] = base64.b64encode(raw[:-1]).decode()


def signed_mutations(document):
    """Changes that the signature must catch: (name, changed envelope)."""
    definition = lambda s: s["predicate"]["buildDefinition"]
    external = lambda s: definition(s)["externalParameters"]
    details = lambda s: s["predicate"]["runDetails"]
    statements = {
        "another digest": lambda s: s["subject"][0]["digest"].update(sha256="0" * 64),
        "another file name": lambda s: s["subject"][0].update(name="other.deb"),
        "one more subject": lambda s: s["subject"].append(dict(s["subject"][0], name="more")),
        "another builder": lambda s: details(s)["builder"].update(id="x"),
        "another start": lambda s: details(s)["metadata"].update(startedOn="2001-01-01T00:00:00Z"),
        "another network": lambda s: external(s).update(network="0" * 64),
        "another job": lambda s: external(s).update(job="0" * 64),
        "another version": lambda s: external(s).update(version="9.9"),
        "another architecture": lambda s: external(s).update(architecture="riscv64"),
        "another channel": lambda s: external(s).update(channel="other"),
        "another lease": lambda s: definition(s)["internalParameters"].update(lease=99),
        "without what it was made of": lambda s: definition(s).update(resolvedDependencies=[]),
    }
    for name, change in statements.items():
        yield name, with_payload(document, change)
    payload = base64.b64decode(document["payload"])
    envelopes = {
        "a space behind the payload": lambda d: d.update(payload=base64.b64encode(payload + b" ").decode()),
        "a payload that was cut": lambda d: d.update(payload=base64.b64encode(payload[:-1]).decode()),
        "a payload that is no base64": lambda d: d.update(payload="!" + d["payload"][1:]),
        "another payload type": lambda d: d.update(payloadType="application/json"),
        "a signature that was cut": cut_signature,
        "a flipped bit in the signature": flipped_signature,
        "no signature": lambda d: d.update(signatures=[]),
        "a foreign key id": lambda d: d["signatures"][0].update(keyid="ff" * 32),
    }
    for name, change in envelopes.items():
        yield name, with_envelope(document, change)


def changed_payloads(document, changes):
    """The payloads of a statement after each of these changes: (name, payload)."""
    for name, change in changes.items():
        yield name, base64.b64decode(with_payload(document, change)["payload"])


def statement_mutations(document):
    """Changes that the library must catch even if somebody signs them: (name, payload)."""
    definition = lambda s: s["predicate"]["buildDefinition"]
    details = lambda s: s["predicate"]["runDetails"]
    yield from changed_payloads(document, {
        "no statement type": lambda s: s.pop("_type"),
        "another statement type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        "a statement type that is a number": lambda s: s.update(_type=1),
        "no predicate type": lambda s: s.pop("predicateType"),
        "an empty predicate": lambda s: s.update(predicate={}),
        "a predicate that is a list": lambda s: s.update(predicate=[s["predicate"]]),
        "an unknown field of the statement": lambda s: s.update(extra=1),
        "an unknown field of the predicate": lambda s: s["predicate"].update(extra=1),
        "an unknown field of the definition": lambda s: definition(s).update(extra=1),
        "an unknown field of the builder": lambda s: details(s)["builder"].update(extra=1),
        "no subject": lambda s: s.update(subject=[]),
        "a subject that is a word": lambda s: s.update(subject="file"),
        "a subject without digest": lambda s: s["subject"][0].pop("digest"),
        "a subject with an empty digest": lambda s: s["subject"][0].update(digest={}),
        "a digest that is a number": lambda s: s["subject"][0]["digest"].update(sha256=1),
        "an unknown field of a subject": lambda s: s["subject"][0].update(extra=1),
        "a build type that is a list": lambda s: definition(s).update(buildType=[]),
        "dependencies that are a word": lambda s: definition(s).update(resolvedDependencies="none"),
        "a time that is none": lambda s: details(s)["metadata"].update(startedOn="yesterday"),
        "a time without a zone": lambda s: details(s)["metadata"].update(finishedOn="2026-01-01T00:00:00"),
    })
    yield "two values", base64.b64decode(document["payload"]) * 2


def own_mutations(document):
    """Changes that the library takes, and that we refuse: (name, payload)."""
    definition = lambda s: s["predicate"]["buildDefinition"]
    yield from changed_payloads(document, {
        "a subject without BLAKE3": lambda s: s["subject"][0]["digest"].pop("blake3"),
        "a digest that was cut": lambda s: s["subject"][0]["digest"].update(sha256="0" * 63),
        "a digest that is no hexadecimal": lambda s: s["subject"][0]["digest"].update(sha256="x" * 64),
        "no build type": lambda s: definition(s).pop("buildType"),
        "no builder": lambda s: s["predicate"]["runDetails"]["builder"].pop("id"),
    })


def refuses(name, check):
    """Says whether a judge refused a mutation, and in which words."""
    try:
        check()
    except Refused as why:
        print(f"refused   {name}: {str(why)[:110]}")
        return True
    print(f"ACCEPTED  {name}")
    return False


def main(arguments):
    if len(arguments) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    path, key_hex = arguments
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    try:
        statement = judge(document, key_hex)
    except Refused as why:
        print(f"judge: {path}: {why}", file=sys.stderr)
        return 1
    print(f"accepted  {path}: {', '.join(subject.name for subject in statement.subject)}")
    signed = [refuses("another key", lambda: check_signature(document, STRANGER))]
    signed += [refuses(name, lambda: check_signature(changed, key_hex)) for name, changed in signed_mutations(document)]
    stated = [refuses(name, lambda: check_by_library(payload)) for name, payload in statement_mutations(document)]
    own = [refuses(name, lambda: check_statement(payload)) for name, payload in own_mutations(document)]
    print(f"securesystemslib refused {sum(signed)}, in_toto_attestation {sum(stated)}, what is asked for beyond that {sum(own)}")
    verdicts = signed + stated + own
    print(f"{sum(verdicts)} of {len(verdicts)} mutations refused")
    return 0 if all(verdicts) and min(len(signed), len(stated)) >= MUTATIONS_MIN else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
