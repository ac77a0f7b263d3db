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
# What the program ends with: there is no evidence; it does not hold.
MISSING, UNHELD = 10, 13


class Artel(dnf.Plugin):
    name = "artel"

    def pre_transaction(self):
        try:
            settings = self.read_config(self.base.conf)
            program = settings.get("main", "program").split()
            policy = settings.get("main", "policy")
            patterns = settings.get("main", "repositories").split()
            channels = [word.rpartition("=")[::2] for word in settings.get("main", "channels").split()]
        except Exception as error:
            raise dnf.exceptions.Error("artel: the hook's settings cannot be read: %s" % error)
        refused = []
        for package in self.base.transaction.install_set:
            if not any(fnmatch.fnmatchcase(package.reponame, pattern) for pattern in patterns):
                continue
            try:
                options = ["--policy", policy] + self.channel(package, channels)
                words = self.refusal(package, program + options, policy)
            except Exception as error:
                words = "%s: %s" % (type(error).__name__, error)
            if words:
                refused.append("%s is REFUSED: %s" % (package, words))
        if refused:
            raise dnf.exceptions.Error(
                "artel: " + "\nartel: ".join(refused) + "\nartel: nothing was installed. Leave the refused packages out, get a newer "
                "policy file (`artel policy export` on a node), or take the hook out with `artel dnf-hook uninstall`")

    def channel(self, package, channels):
        """Gives the options that say for which channel a package must be proven: its repository's address as this machine's own settings
        have it, and what the owner named; what its index says decides nothing."""
        named = [name for of, name in channels if of == package.reponame]
        source = next(iter(self.bases(package)), "repository:" + package.reponame if named else "")
        words = [source + "=" + name for name in named] + [name for of, name in channels if not of]
        return ["--from", source] + [option for word in words for option in ("--channel-of", word)]

    def bases(self, package):
        """Gives the addresses of a package's repository, as this machine's settings have them; none of a file that was named."""
        if package.reponame not in self.base.repos:
            return []
        return [str(base) for base in self.base.repos[package.reponame].baseurl]

    def refusal(self, package, program, policy):
        """Gives words why a package is not proven; none when it is."""
        with tempfile.TemporaryDirectory(prefix="artel-") as folder:
            stem = os.path.join(folder, "evidence")
            told = [self.fetch(package, suffix, stem + suffix) for suffix in SUFFIXES]
            identity = "%s=%s/%s" % (package.name, package.evr, package.arch)
            arguments = ["--evidence", stem, "--is", identity, "--", package.localPkg()]
            code, words = self.ask(program, arguments)
            if code == UNHELD and self.demands_age(policy):
                # Perhaps it is only too old by its own evidence.
                newer = os.path.join(folder, "checkpoint")
                why = self.fetch_checkpoint(package, newer)
                if why is None:
                    code, words = self.ask(program + ["--checkpoint", newer], arguments)
                elif "it takes a newer checkpoint" in words:
                    words += ", and none is to be had where it comes from (%s)" % why
        if code == MISSING and told[0]:
            words += " (%s)" % told[0]
        return words

    def ask(self, program, arguments):
        """Gives the program's exit code, and words unless a package is proven."""
        answer = subprocess.run(
            program + arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        if answer.returncode == 0:
            return 0, None
        lines = [line for line in answer.stdout.decode("utf-8", "replace").splitlines() if line.strip()]
        return answer.returncode, lines[0] if lines else "%s ends with %d" % (program[0], answer.returncode)

    def demands_age(self, policy):
        with open(policy, encoding="utf-8", errors="replace") as lines:
            return any(line.split()[:1] == ["max-age"] for line in lines)

    def fetch(self, package, suffix, to):
        """Puts what lies beside a package into a file, from disk or as dnf fetches packages. Gives words where it cannot be had."""
        beside = package.localPkg() + suffix
        if os.path.exists(beside):
            return self.copy(beside, lambda: open(beside, "rb"), to)
        address = package.remote_location()
        if not address:
            return "%s is not there" % beside
        return self.copy(address + suffix, lambda: self.base.urlopen(address + suffix, repo=package.repo, mode="w+b"), to)

    def fetch_checkpoint(self, package, to):
        """Puts the log's newest checkpoint into a file: a node serves it beside its repositories, a folder may have it in it."""
        told = []
        for base in self.bases(package):
            node, beside, _ = base.rpartition("/repo/")
            for address in ([node + "/log/checkpoint"] if beside else []) + [base.rstrip("/") + "/log/checkpoint"]:
                why = self.copy(address, lambda: self.base.urlopen(address, repo=package.repo, mode="w+b"), to)
                if why is None:
                    return None
                told.append(why)
        return "; ".join(told) or "its repository has no address of its own"

    def copy(self, name, opened, to):
        """Copies what can be opened into a file. Gives words where it cannot be had."""
        try:
            with opened() as source, open(to, "wb") as into:
                into.write(source.read(LARGEST + 1))
            return None
        except Exception as error:
            return "%s cannot be had: %s" % (name, error)
