# Written by `artel dnf-hook install`; `artel dnf-hook uninstall` takes it out.
"""Lets packages of artel repositories into a transaction only with the proof that operators built them.

For each package that is to be installed from a repository named in artel.conf, the evidence beside it is fetched as dnf fetches
packages, and the program is asked. Whatever goes wrong refuses the package: dnf itself only reports a plugin's errors and goes on.
"""

import fnmatch
import os
import subprocess
import tempfile

import dnf
import dnf.exceptions

SUFFIXES = (".intoto.jsonl", ".tlog-proof")
LARGEST = 32 * 1024 * 1024


class Artel(dnf.Plugin):
    name = "artel"

    def pre_transaction(self):
        try:
            settings = self.read_config(self.base.conf)
            program = settings.get("main", "program").split()
            policy = settings.get("main", "policy")
            patterns = settings.get("main", "repositories").split()
        except Exception as error:
            raise dnf.exceptions.Error("artel: the hook's settings cannot be read: %s" % error)
        refused = []
        for package in self.base.transaction.install_set:
            if not any(fnmatch.fnmatchcase(package.reponame, pattern) for pattern in patterns):
                continue
            try:
                words = self.refusal(package, program, policy)
            except Exception as error:
                words = "%s: %s" % (type(error).__name__, error)
            if words:
                refused.append("%s is REFUSED: %s" % (package, words))
        if refused:
            raise dnf.exceptions.Error(
                "artel: " + "\nartel: ".join(refused) + "\nartel: nothing was installed. Leave the refused packages out, get a newer "
                "policy file (`artel policy export` on a node), or take the hook out with `artel dnf-hook uninstall`")

    def refusal(self, package, program, policy):
        """Gives words why a package is not proven; none when it is."""
        with tempfile.TemporaryDirectory(prefix="artel-") as folder:
            stem = os.path.join(folder, "evidence")
            told = [self.fetch(package, suffix, stem + suffix) for suffix in SUFFIXES]
            identity = "%s=%s/%s" % (package.name, package.evr, package.arch)
            answer = subprocess.run(
                program + ["--policy", policy, "--evidence", stem, "--is", identity, "--", package.localPkg()],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        if answer.returncode == 0:
            return None
        lines = [line for line in answer.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        words = lines[0] if lines else "%s ends with %d" % (program[0], answer.returncode)
        if answer.returncode == 10 and told[0]:
            words += " (%s)" % told[0]
        return words

    def fetch(self, package, suffix, to):
        """Puts what lies beside a package into a file, from disk or as dnf fetches packages. Gives words where it cannot be had."""
        beside = package.localPkg() + suffix
        address = None if os.path.exists(beside) else package.remote_location()
        try:
            if address is None:
                source = open(beside, "rb")
            else:
                source = self.base.urlopen(address + suffix, repo=package.repo, mode="w+b")
            with source, open(to, "wb") as into:
                into.write(source.read(LARGEST + 1))
            return None
        except Exception as error:
            return "%s cannot be had: %s" % (address + suffix if address else beside, error)
