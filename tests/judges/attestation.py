#!/usr/bin/env python3
"""Asks two libraries that nobody here wrote whether an attestation of ours is what it claims to be.

    attestation.py FILE PUBLIC_KEY_HEX

FILE is a DSSE envelope as JSON. It must

  1. verify with securesystemslib under the ed25519 key, as one signature of one,
  2. hold an in-toto Statement v1 that in_toto_attestation accepts, written as that library reads it,
  3. hold a predicate that parses as SLSA provenance v1 with no field that the schema does not know,

and each of a list of mutations must be refused by the judge whose subject it is. Exits 0 when all of this holds, 1 when
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


def check_statement(payload):
    """in_toto_attestation: the Statement validates, and the predicate is SLSA provenance without foreign fields."""
    try:
        message = json_format.Parse(payload, statement_pb2.Statement())
        Statement.copy_from_pb(message).validate()
    except Exception as error:
        raise Refused(f"in_toto_attestation: {type(error).__name__}: {error}") from error
    if message.predicate_type != PROVENANCE:
        raise Refused(f"predicate type is {message.predicate_type}")
    for subject in message.subject:
        for algorithm in ("sha256", "blake3"):
            if not re.fullmatch("[0-9a-f]{64}", subject.digest.get(algorithm, "")):
                raise Refused(f"subject {subject.name} has no {algorithm}")
    check_provenance(json.loads(payload)["predicate"])
    return message


def check_provenance(predicate):
    """The schema's own message type: parsing refuses unknown fields and times that are not RFC 3339."""
    try:
        provenance = json_format.ParseDict(predicate, provenance_pb2.Provenance())
    except Exception as error:
        raise Refused(f"SLSA provenance: {type(error).__name__}: {error}") from error
    definition, details = provenance.build_definition, provenance.run_details
    if not definition.build_type or not definition.external_parameters or not details.builder.id:
        raise Refused("SLSA provenance: buildType, externalParameters and builder.id are required")
    for field in ("startedOn", "finishedOn"):
        if not TIME.match(predicate["runDetails"]["metadata"][field]):
            raise Refused(f"{field} is not YYYY-MM-DDThh:mm:ssZ")


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
    yield "another digest", with_payload(document, lambda s: s["subject"][0]["digest"].update(sha256="0" * 64))
    yield "another file name", with_payload(document, lambda s: s["subject"][0].update(name="other.deb"))
    yield "another builder", with_payload(document, lambda s: s["predicate"]["runDetails"]["builder"].update(id="x"))
    yield "one more subject", with_payload(document, lambda s: s["subject"].append(dict(s["subject"][0], name="more")))
    external = lambda s: s["predicate"]["buildDefinition"]["externalParameters"]
    yield "another network", with_payload(document, lambda s: external(s).update(network="0" * 64))
    yield "another version", with_payload(document, lambda s: external(s).update(version="9.9"))
    yield "a signature that was cut", with_envelope(document, cut_signature)
    yield "another payload type", with_envelope(document, lambda d: d.update(payloadType="application/json"))
    yield "a flipped bit in the signature", with_envelope(document, flipped_signature)
    yield "no signature", with_envelope(document, lambda d: d.update(signatures=[]))
    yield "a foreign key id", with_envelope(document, lambda d: d["signatures"][0].update(keyid="ff" * 32))


def statement_mutations(document):
    """Changes that the Statement's and the predicate's judges must catch even if somebody signs them: (name, payload)."""
    changes = {
        "no subject": lambda s: s.update(subject=[]),
        "a subject without digest": lambda s: s["subject"][0].pop("digest"),
        "a subject without BLAKE3": lambda s: s["subject"][0]["digest"].pop("blake3"),
        "another statement type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
        "no predicate type": lambda s: s.pop("predicateType"),
        "an empty predicate": lambda s: s.update(predicate={}),
        "an unknown field of the statement": lambda s: s.update(extra=1),
        "an unknown field of the predicate": lambda s: s["predicate"].update(extra=1),
        "no build type": lambda s: s["predicate"]["buildDefinition"].pop("buildType"),
        "no builder": lambda s: s["predicate"]["runDetails"]["builder"].pop("id"),
        "a time that is none": lambda s: s["predicate"]["runDetails"]["metadata"].update(startedOn="yesterday"),
    }
    for name, change in changes.items():
        yield name, base64.b64decode(with_payload(document, change)["payload"])


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
    verdicts = [refuses("another key", lambda: judge(document, STRANGER))]
    for name, changed in signed_mutations(document):
        verdicts.append(refuses(name, lambda: judge(changed, key_hex)))
    for name, payload in statement_mutations(document):
        verdicts.append(refuses(name, lambda: check_statement(payload)))
    print(f"{sum(verdicts)} of {len(verdicts)} mutations refused")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
