"""A certificate of forgetting: a server's signed statement of what it did.

    {"certificate":{…},"signature":"<128 hexadecimal digits>"}

and a newline. The value of ``certificate`` is JSON in the form of `strategies.runs.files.canonical_json`; the
signature is Ed25519 (RFC 8032) over its bytes as they stand in the file, so that a check needs no writer of
JSON and no opinion on how floats are printed. The public key stands inside the certificate: it shows that
nothing was changed since it was signed. *Who* signed is another question, answered by comparing that key, or
its fingerprint, with one that came from the signer by another way.

A signature does not make a statement true. What the figures do not show, and what the method does not
promise, stands under ``limits``, inside what is signed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from strategies.core.errors import BadInput
from strategies.runs.files import canonical_json

FORMAT = "lethe-certificate"
VERSION = 1
"""Of the certificate's layout; another version is refused."""

PUBLIC_KEY = "public-key"
"""In a certificate: the signer's public key, 64 hexadecimal digits."""


@dataclass(frozen=True)
class Certificate:
    """A certificate as it was read: its statement, and the bytes of the document. `is_signed` checks it."""

    statement: Mapping[str, Any]
    document: bytes

    @property
    def public_key(self) -> bytes:
        """The signer's key that it names, 32 bytes; empty if it names none."""
        return _from_hex(self.statement.get(PUBLIC_KEY), 32)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of that key."""
        return fingerprint(self.public_key)

    @property
    def is_signed(self) -> bool:
        """Whether the holder of the key signed exactly these bytes."""
        signature = _from_hex(json.loads(self.document)["signature"], 64)
        try:
            if not signature or self.document != _document(self.statement, signature):
                return False
            public_key = Ed25519PublicKey.from_public_bytes(self.public_key)
            public_key.verify(signature, canonical_json(self.statement))
        except (InvalidSignature, ValueError, RecursionError):
            return False
        return True


def make(statement: Mapping[str, Any], key: Ed25519PrivateKey) -> bytes:
    """Return the certificate of a statement, signed with `key`; format, version and public key are added.

    The statement is anything that `strategies.runs.files.canonical_json` takes.
    """
    public_key = key.public_key().public_bytes_raw().hex()
    whole = {**statement, "format": FORMAT, "version": VERSION, PUBLIC_KEY: public_key}
    return _document(whole, key.sign(canonical_json(whole)))


def read(document: bytes) -> Certificate:
    """Read a certificate, without judging it; BadInput if it is none, or of another version."""
    try:
        found = json.loads(document)
    except (ValueError, RecursionError):
        raise BadInput("this is no certificate: expected JSON") from None
    statement = found.get("certificate") if isinstance(found, dict) else None
    if not isinstance(statement, dict) or statement.get("format") != FORMAT or "signature" not in found:
        raise BadInput(f"this is no certificate: expected an object of the format '{FORMAT}', signed")
    if statement.get("version") != VERSION:
        raise BadInput(f"certificate of version {statement.get('version')}, this Lethe reads {VERSION}")
    return Certificate(statement, document)


def fingerprint(public_key: bytes) -> str:
    """Return a short text to compare in place of a public key of 32 bytes.

    Examples
    --------
    >>> fingerprint(bytes(32))
    'SHA256:66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925'
    """
    return f"SHA256:{hashlib.sha256(public_key).hexdigest()}"


def limits(
    method: str, guarantee: str, audit: Mapping[str, Any] | None, epsilon: float | None = None
) -> list[str]:
    """Return what must not be concluded from a certificate.

    `audit` is ``audit.json``, or None if nothing was measured; `epsilon` that of a guarantee for the model
    after forgetting, or None.
    """
    measured: Sequence[str] = (
        ("nothing was audited: what the model still shows of the forgotten data is unknown",)
        if audit is None
        else [
            "the audit bounds nothing: it compares figures with those of one retrained model",
            *audit.get("notes", ()),
            *_limits_of_attacks(audit),
        ]
    )
    private = () if epsilon is not None else ("no differential privacy: no ε bounds what the model shows",)
    return [
        f"{method}, {guarantee}",
        *measured,
        *private,
        "the model from before, which holds the forgotten data, is kept in the run's folder",
        "copies of models or updates outside of the run's folder are not accounted for",
        "the time is that of the signer's clock",
    ]


def _limits_of_attacks(audit: Mapping[str, Any]) -> Iterator[str]:
    """Yield what attacks on single examples did not try, or found."""
    shadows = audit.get("shadows")
    if shadows is None:
        yield (
            "no attack with shadow models was made: single examples, such as rare or mislabelled ones, may "
            "still be told from others (audit.shadows)"
        )
    else:
        if shadows["outcome"] != "passes":
            yield f"shadow models: {shadows['text']}"
        yield "shadow models that were trained with the forgotten data are kept in the run's folder, too"
    yield from _limits_of_weights_themselves(audit.get("relearned"), bool(audit.get("rounded")))


def _limits_of_weights_themselves(relearned: Mapping[str, Any] | None, rounded: bool) -> Iterator[str]:
    """Yield what was not tried to bring back what the answers do not show, and that relearning was quick."""
    if relearned is not None and _earlier(relearned["after"], relearned["retrained"]):
        yield (
            f"relearning: what was forgotten is known again after {relearned['after']} rounds, by the "
            f"retrained model after {_rounds(relearned)}"
        )
    said = {
        (False, False): "neither relearning nor rounding was tried",
        (False, True): "relearning was not tried (audit.relearn)",
        (True, False): "rounding was not tried (audit.rounding)",
        (True, True): "relearning and rounding were tried, and nothing else",
    }
    tried = said[relearned is not None, rounded]
    yield f"the weights themselves may hold what the answers do not show: {tried}"


def _rounds(relearned: Mapping[str, Any]) -> str:
    known = relearned["retrained"]
    return f"more than {relearned['most']}" if known is None else str(known)


def _earlier(rounds: int | None, others: int | None) -> bool:
    """Say whether so many rounds are fewer than others; None are more than were tried."""
    return rounds is not None and (others is None or rounds < others)


def limits_of_weights(sha256: str) -> list[str]:
    """Return what must not be concluded after a run that began from given weights, with their SHA-256."""
    return [
        f"training began from given weights (SHA-256 {sha256}), retraining as well: what these had seen of "
        "the forgotten data before is not forgotten",
    ]


def limits_of_choice(judged: Mapping[str, Any]) -> list[str]:
    """Return what must not be concluded where the run's model is of a round that was chosen.

    `judged` is what the summary says of the choice.
    """
    return [
        f"the model is that of round {judged['round']} of {judged['trained']}, chosen by the server's own "
        f"examples among models that had learnt of the forgotten data; retraining takes {judged['round']} "
        "rounds as well and does not choose anew",
    ]


def limits_of_held_out(standing: str) -> list[str]:
    """Return what must not be concluded where held-out data said how far to go.

    `standing` says how far it is.
    """
    return [
        f"how far to go was told by the server's public data, which were not trained on ({standing}): "
        "examples that are harder than others of their label, such as mislabelled or rare ones, are "
        "forgotten too little by that; how far it is was said by the clients that hold the forgotten data, "
        "before any recovery",
    ]


def limits_of_noise(certified: Mapping[str, Any]) -> list[str]:
    """Return what an (ε, δ) of a result is about, and what not.

    `certified` is what the result says of it.
    """
    after, more = certified["kept-round"], certified["rounds"]
    named = ", ".join(certified["clients"])
    others = (
        f"a training without client {named}, from the same initial model, in which the others took part in "
        f"the rounds that the log names, with the same batches, up to round {after}"
    )
    compared = (
        f"ε = {certified['epsilon']:g} and δ = {certified['delta']:g} compare this model with that of "
        f"{others}, which then got noise of the same {certified['noise']:g} on each weight and {more} more "
        "rounds"
        if certified["sensitivity"]
        else f"no noise was added: up to round {after} the run was {others}"
    )
    return [
        f"{compared}; nothing is said of the models and updates of the run, which are kept and which its "
        "clients have seen",
        "whoever sees several results without the client has seen as many draws of noise: their ε and δ add "
        "up, and a result in which the client is not forgotten bounds nothing",
        f"how far it went back (round {after}) and by how much the client had moved the model "
        f"({certified['sensitivity']:.3g}) follow from its updates and are told here, outside of ε and δ",
        "the bound is that of gradient steps on a convex loss in real numbers: it takes the remaining "
        "clients' word for the largest norm of their inputs, and leaves out what float32 rounds",
    ]


def limits_of_sums() -> list[str]:
    """Return what must not be concluded after a run of masked or encrypted sums was retrained."""
    return [
        "the server got the sums of two trainings over nearly the same clients: other initial weights and "
        "another seed keep their difference from being the forgotten client's update, but it may tell "
        "something of it; only noise that clients add themselves (privacy.unit = client-local) bounds that",
    ]


def limits_of_groups(groups: Mapping[str, Any], exact: bool) -> list[str]:
    """Return what a forgetting rests on in a run whose groups of clients were trained apart.

    `groups` is what the result says of them; `exact` says whether the method is.
    """
    shown = ", ".join(map(str, groups["concerned"]))
    named = f"group {shown} of the {groups['of']} groups of clients that were trained apart"
    if not exact:
        return [f"only the model of {named} was worked on; the answer is the mean of all groups'"]
    return [
        f"exact rests on this: {named} was trained again without what is forgotten, and nothing that its "
        "clients sent had gone into the other groups' models, which are those of the run; what clients of "
        "other groups hold, such as a copy of the same record, is not forgotten",
    ]


def limits_of_scale() -> list[str]:
    """Return what must not be concluded where clients have summed the scale of the inputs."""
    return [
        "the means and deviations that inputs are scaled by are those of all clients' data from before the "
        "run: the part of what was forgotten is still in them, after retraining as well",
    ]


def limits_of_target_scale() -> list[str]:
    """Return what must not be concluded where clients have summed the scale of their targets."""
    return [
        "the scale that scores are measured by is that of all clients' targets from before the run: the part "
        "of what was forgotten is still in it, after retraining as well; it changes scores, and no model",
    ]


def limits_of_purge(
    clients: Sequence[str], *, keys_destroyed: bool = False, tracked: bool = False
) -> list[str]:
    """Return what must not be concluded from a certificate that says that clients were purged.

    `keys_destroyed` says that the updates were encrypted, with keys that were destroyed, `tracked` that
    figures of the run were handed to trackers.
    """
    named = ", ".join(clients)
    return [
        f"the log still says in which rounds client {named} took part and with which weight, from which its "
        "number of examples follows",
        f"the sum of the weighted updates of client {named} follows from the models before and after the run "
        "and the others' updates, while all of these are kept; so it does from the models before and after "
        "a subtraction",
        "the updates were encrypted and their keys destroyed: copies of the log are unreadable unless the "
        "key was copied too; the keys were overwritten, but flash memory, file systems that copy on write, "
        "snapshots and backups may keep old blocks of them"
        if keys_destroyed
        else "files were overwritten before they were deleted; flash memory, file systems that copy on "
        "write, snapshots and backups may keep old blocks, and what was deleted before was not overwritten",
        *(
            ["what trackers (run.track) keep outside the run's folder, such as on a server, is still there"]
            if tracked
            else ()
        ),
    ]


def _document(statement: Mapping[str, Any], signature: bytes) -> bytes:
    return b'{"certificate":%s,"signature":"%s"}\n' % (canonical_json(statement), signature.hex().encode())


def _from_hex(text: object, length: int) -> bytes:
    """Return the bytes of hexadecimal digits; empty if they are not of that length."""
    try:
        found = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""
    return found if len(found) == length else b""
