#!/usr/bin/env python3
"""Asks in-toto whether operators' links of a package are what a layout with a threshold wants.

    layout.py LINKS PACKAGE PUBLIC_KEY_HEX...

LINKS is a folder with one link of in-toto's first format for each key, as a node serves it to clients of rebuilders:
`<number of the key, from 0>.json`. PACKAGE is the file that they speak of. A layout that this program signs as a project's
owner names the keys as functionaries of one step, and an inspection that looks at the package. in-toto must

  1. accept the package with a threshold of all keys, and with one less when a link is missing,
  2. refuse it with a threshold of one more than there are links,
  3. refuse each of a list of mutations of links, package and layout.

Exits 0 when all of this holds, 1 when something does not, 2 on wrong usage or where a library is missing. Install the judge into
a virtual environment:

    python3 -m venv VENV && VENV/bin/pip install in-toto cryptography
"""

import copy
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile

try:
    from in_toto.models.layout import Inspection, Layout, Step
    from in_toto.models.metadata import Metablock
    from in_toto.verifylib import in_toto_verify
    from securesystemslib.signer import CryptoSigner
except ImportError as missing:
    print(f"judge: {missing}; see the head of this file for what to install", file=sys.stderr)
    sys.exit(2)


class Refused(Exception):
    """The judge said no."""


def functionary(key_hex):
    """The key as a layout has it, under the id that in-toto-rs computes."""
    key = {"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": key_hex}}
    named = dict(key, keyid_hash_algorithms=["sha256", "sha512"])
    text = json.dumps(named, sort_keys=True, separators=(",", ":"))
    return dict(key, keyid=hashlib.sha256(text.encode()).hexdigest())


def layout_of(step, file, keys, threshold):
    """One step by the functionaries, and an inspection of what is to be installed."""
    rebuild = Step(name=step, pubkeys=[key["keyid"] for key in keys], threshold=threshold)
    rebuild.expected_products = [["ALLOW", file], ["DISALLOW", "*"]]
    rebuild.expected_materials = [["DISALLOW", "*"]]
    look = Inspection(name="look", run=["true"])
    look.expected_materials = [["MATCH", file, "WITH", "PRODUCTS", "FROM", step], ["DISALLOW", "*"]]
    layout = Layout(steps=[rebuild], inspect=[look], keys={key["keyid"]: key for key in keys})
    layout.set_relative_expiration(days=1)
    return layout


def verify(case):
    """in_toto_verify over a case in a folder of its own; raises Refused with the judge's words."""
    owner = CryptoSigner.generate_ed25519()
    block = Metablock(signed=layout_of(case["step"], case["file"], case["keys"], case["threshold"]))
    block.create_signature(owner)
    if case.get("layout"):
        case["layout"](block)
    public = owner.public_key
    trusted = {public.keyid: dict(public.to_dict(), keyid=public.keyid)}
    back = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        links, root = pathlib.Path(folder, "links"), pathlib.Path(folder, "root")
        links.mkdir()
        root.mkdir()
        for key, link in zip(case["keys"], case["links"]):
            if link is not None:
                (links / f"{case['step']}.{key['keyid']:.8}.link").write_text(json.dumps(link))
        (root / case["file"]).write_bytes(case["package"])
        os.chdir(root)
        try:
            in_toto_verify(block, trusted, link_dir_path=str(links), persist_inspection_links=False)
        except Exception as error:  # Each kind of refusal is an exception of its own there.
            raise Refused(f"{type(error).__name__}: {error}") from error
        finally:
            os.chdir(back)


def changed(case, **changes):
    return dict(copy.deepcopy({name: value for name, value in case.items()}), **changes)


def each_link(case, change):
    """The same case with every link changed."""
    links = copy.deepcopy(case["links"])
    for link in links:
        change(link)
    return changed(case, links=links)


def flip(link):
    signature = link["signatures"][0]
    signature["sig"] = ("0" if signature["sig"][0] != "0" else "1") + signature["sig"][1:]


def flipped(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def mutations(case):
    """Cases that must be refused: (name, case)."""
    file, count = case["file"], len(case["links"])
    other = hashlib.sha256(b"other").hexdigest()
    yield "a threshold above the number of links", changed(case, threshold=count + 1)
    yield "a changed package", changed(case, package=flipped(case["package"]))
    yield "an empty package", changed(case, package=b"")
    yield "a link less than the threshold", changed(case, links=[None] + case["links"][1:])
    yield "no link", changed(case, links=[None] * count)
    yield "one operator's link for all", changed(case, links=[case["links"][0]] * count)
    yield "signatures of others", changed(case, links=case["links"][1:] + case["links"][:1])
    yield "a flipped digit in each signature", each_link(case, flip)
    one = copy.deepcopy(case["links"])
    flip(one[0])
    yield "a flipped digit in one signature", changed(case, links=one)
    yield "no signature", each_link(case, lambda link: link.update(signatures=[]))
    yield "a foreign key id", each_link(case, lambda link: link["signatures"][0].update(keyid="ff" * 32))
    yield "another digest", each_link(case, lambda link: link["signed"]["products"][file].update(sha256=other))
    yield "another name", each_link(case, lambda link: link["signed"].update(name="rebuild other.deb"))
    yield "another product", each_link(case, lambda link: link["signed"]["products"].update({"x": {"sha256": other}}))
    yield "a material", each_link(case, lambda link: link["signed"]["materials"].update({"x": {"sha256": other}}))
    yield "a command", each_link(case, lambda link: link["signed"]["command"].append("true"))
    yield "a byproduct", each_link(case, lambda link: link["signed"]["byproducts"].update(stdout="x"))
    yield "an environment", each_link(case, lambda link: link["signed"]["environment"].update(x="y"))
    yield "another type", each_link(case, lambda link: link["signed"].update(_type="layout"))
    strangers = [functionary(hashlib.sha256(bytes([n])).hexdigest()) for n in range(count)]
    yield "keys of strangers", changed(case, keys=strangers)
    yield "a layout that was changed", changed(case, layout=lambda block: setattr(block.signed, "readme", "changed"))
    yield "a layout without signature", changed(case, layout=lambda block: block.signatures.clear())


def main(arguments):
    if len(arguments) < 4:
        print(__doc__, file=sys.stderr)
        return 2
    folder, package, keys = pathlib.Path(arguments[0]), pathlib.Path(arguments[1]), arguments[2:]
    links = [json.loads((folder / f"{at}.json").read_text()) for at in range(len(keys))]
    case = {
        "step": links[0]["signed"]["name"],
        "file": package.name,
        "keys": [functionary(key) for key in keys],
        "links": links,
        "package": package.read_bytes(),
        "threshold": len(links),
    }
    try:
        verify(case)
        verify(changed(case, links=[None] + links[1:], threshold=len(links) - 1))
    except Refused as why:
        print(f"judge: {why}", file=sys.stderr)
        return 1
    print(f"accepted  {package.name}: {len(links)} of {len(links)}, and {len(links) - 1} with a link missing")
    refused = all_cases = 0
    for name, mutated in mutations(case):
        all_cases += 1
        try:
            verify(mutated)
            print(f"ACCEPTED  {name}")
        except Refused as why:
            refused += 1
            print(f"refused   {name}: {str(why)[:110]}")
    print(f"{refused} of {all_cases} mutations refused")
    return 0 if refused == all_cases else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
