"""A country of the private sum, implemented from docs/private-sum.md alone.

Of the project it uses the generated messages and nothing else. Its agreement with the vectors and
with the real countries shows that the page is enough to write a node.
"""

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols.proto import round_pb2 as pb
from tests.vectors.derivations import (
    AGREE,
    ANSWER,
    BUNDLE,
    CONFIRM,
    CONTRIBUTE,
    ENCAPSULATE,
    PRIME,
    Mechanism,
    Pair,
    RefusedRequest,
    Round,
    Run,
    Terms,
    bind,
    check_versions,
    commitments_digest,
    confirmation,
    demand,
    digest,
    encapsulated,
    exchanged,
    joined,
    masked,
    own_mask_key,
    packed,
    parsed,
    round_context,
    round_keys,
    serialised,
    share_of,
    split_by_country,
    transcript_of,
    verified,
    versions_digest,
    words_digest,
)

COORDINATOR, EVERYBODY = "coordinator", "roster"
CONTENTS = ("bundle", "encapsulate", "confirm", "contribute", "agree", "answer")
LARGEST_REQUEST, LARGEST_BODY, LARGEST_HEAD = 48 * 2**20, 8 * 2**20, 2**16
LARGEST_ROUND, LARGEST_ROSTER = 10**6, 256
MAX_SKIPPED = 10_000
CIPHERTEXT, MAC, SEALED, NOTHING = 1088, 32, 60, bytes(32)

Encapsulate = Callable[[str, bytes], tuple[bytes, bytes]]
"""Maps country and ML-KEM key to secret and ciphertext."""
Record = Callable[[int, str, bytes], Sequence[int]]
"""Maps round number, phase kind and model to d integers, with the noise added."""


@dataclass
class Country:
    """A country: what it knows, what it draws, and the state of one run."""

    name: str
    terms: Terms
    sign: Callable[[bytes], bytes]
    record: Record
    draw: Callable[[int], bytes] = os.urandom
    encapsulate: Encapsulate = encapsulated
    replies: dict[bytes, bytes] = field(default_factory=dict)
    run: Run | None = None
    round: Round | None = None

    # ---- messages ------------------------------------------------------------------------

    def take(self, request: bytes) -> bytes:
        """Return the reply to a request; a refused request changes nothing."""
        try:
            return self._reply_to(request)
        except RefusedRequest as refusal:
            return serialised(pb.Reply(refused=pb.Refused(code=str(refusal))))

    def _reply_to(self, content: bytes) -> bytes:
        demand(len(content) <= LARGEST_REQUEST, "malformed")
        request = parsed(pb.Request, content)
        signed = request.signed
        self._verify(signed, COORDINATOR, EVERYBODY)
        marked = bind(signed.context, signed.phase, COORDINATOR, EVERYBODY, signed.body)
        key = digest("the same", marked, request.parts, request.model)
        if key not in self.replies:
            beside = (request.parts, request.commitments)
            self.replies[key] = serialised(self._step(signed, request.model, *beside))
        return self.replies[key]

    def _step(self, signed: pb.Signed, model: bytes, parts: bytes, committed: bytes) -> pb.Reply:
        demand(len(signed.body) <= LARGEST_BODY, "malformed")
        body = parsed(pb.RequestBody, signed.body)
        content = str(body.WhichOneof("content"))
        demand(content in CONTENTS and CONTENTS.index(content) + 1 == signed.phase, "malformed")
        demand(not model or signed.phase == CONTRIBUTE, "malformed")
        demand(not parts or signed.phase in (CONFIRM, CONTRIBUTE, ANSWER), "malformed")
        demand(not committed or signed.phase == ANSWER, "malformed")
        demand(body.agreement == self.terms.agreement, "stale")
        demand(body.study == self.terms.study, "unknown-study")
        check_versions(body.versions, self.terms.versions)
        if signed.phase == CONTRIBUTE:
            return self._contribute(signed.context, body.contribute, model, parts)
        if signed.phase == BUNDLE:
            return self._bundle(signed.context, body.run_id, body.bundle)
        given = {CONFIRM: (parts,), ANSWER: (parts, committed)}.get(signed.phase, ())
        step: Callable[..., pb.Reply] = getattr(self, f"_{content}")
        return step(signed.context, getattr(body, content), *given)

    def _verify(self, signed: pb.Signed, sender: str, receiver: str) -> None:
        demand((signed.sender, signed.receiver) == (sender, receiver), "stale")
        binding = signed.context, signed.phase, sender, receiver, signed.body
        demand(signed.phase in range(1, 7), "malformed")
        demand(verified(self.terms.keys[sender], signed.signature, bind(*binding)), "not-authentic")

    def _read(self, signed: pb.Signed, context: bytes, phase: int, sender: str) -> bytes:
        """Return the body of a message of another country to all countries."""
        demand((signed.context, signed.phase) == (context, phase), "stale")
        self._verify(signed, sender, EVERYBODY)
        return signed.body

    def _sign(self, context: bytes, phase: int, receiver: str, body: bytes) -> pb.Signed:
        signature = self.sign(bind(context, phase, self.name, receiver, body))
        binding = {"phase": phase, "context": context, "sender": self.name, "receiver": receiver}
        return pb.Signed(**binding, body=body, signature=signature)  # type: ignore[arg-type]

    def _run_at(self, context: bytes, stage: int) -> Run:
        run = self.run
        if run is None or (run.context, run.stage) != (context, stage):
            raise RefusedRequest("stale")
        return run

    # ---- set-up --------------------------------------------------------------------------

    def _bundle(self, context: bytes, run_id: bytes, content: pb.BundleRequest) -> pb.Reply:
        demand(len(run_id) == 16, "malformed")
        demand(self.run is None, "stale")
        self._check_roster(list(content.roster))
        roster = tuple(content.roster)
        demand(context == self.terms.run_context(run_id, roster), "stale")
        x25519 = X25519PrivateKey.from_private_bytes(self.draw(32))
        mlkem = MLKEM768PrivateKey.from_seed_bytes(self.draw(64))
        body = pb.Bundle(versions=self.terms.versions)
        body.x25519 = x25519.public_key().public_bytes_raw()
        body.mlkem = mlkem.public_key().public_bytes_raw()
        signed_list = self._sign(context, BUNDLE, EVERYBODY, serialised(body))
        self.run = Run(context, roster, x25519, mlkem, BUNDLE, sent={BUNDLE: signed_list})
        return pb.Reply(bundle=signed_list)

    def _check_roster(self, roster: Sequence[str]) -> None:
        demand(sorted(set(roster)) == roster and set(roster) <= set(self.terms.countries), "roster")
        enough = max(self.terms.floor, self.terms.threshold(len(roster)))
        demand(enough <= len(roster) <= LARGEST_ROSTER and self.name in roster, "roster")

    def _encapsulate(self, context: bytes, content: pb.EncapsulateRequest) -> pb.Reply:
        run = self._run_at(context, BUNDLE)
        bundles = self._bundles(run, content.bundles)
        digests = {
            country: bind(context, BUNDLE, country, "", signed.body) for country, signed in bundles
        }
        higher = [country for country in run.roster if country > self.name]
        run.bundles = {country: parsed(pb.Bundle, signed.body) for country, signed in bundles}
        encapsulated = {
            country: self.encapsulate(country, run.bundles[country].mlkem) for country in higher
        }
        run.digests, run.secrets = (
            digests,
            {receiver: secret for receiver, (secret, _) in encapsulated.items()},
        )
        sealed = {receiver: ciphertext for receiver, (_, ciphertext) in encapsulated.items()}
        body = serialised(self._encapsulations(run, sealed))
        signed_list = self._sign(context, ENCAPSULATE, EVERYBODY, body)
        run.sent[ENCAPSULATE], run.stage = signed_list, ENCAPSULATE
        reply = pb.EncapsulationReply(signed=signed_list, ciphertexts=joined(sealed))
        return pb.Reply(encapsulation=reply)

    def _bundles(self, run: Run, given: Sequence[pb.Signed]) -> list[tuple[str, pb.Signed]]:
        demand([signed.sender for signed in given] == list(run.roster), "roster")
        for signed in given:
            bundle = parsed(pb.Bundle, self._read(signed, run.context, BUNDLE, signed.sender))
            demand((len(bundle.x25519), len(bundle.mlkem)) == (32, 1184), "not-authentic")
            check_versions(bundle.versions, self.terms.versions)
            demand(signed.sender != self.name or signed == run.sent[BUNDLE], "not-authentic")
        return [(signed.sender, signed) for signed in given]

    def _encapsulations(self, run: Run, sealed: Mapping[str, bytes]) -> pb.Encapsulations:
        body = pb.Encapsulations(sender_bundle=run.digests[self.name])
        for other, ciphertext in sealed.items():
            mark = bind(run.context, ENCAPSULATE, self.name, other, ciphertext)
            body.encapsulations.add(
                receiver=other, receiver_bundle=run.digests[other], ciphertext_digest=mark
            )
        return body

    def _confirm(self, context: bytes, content: pb.ConfirmRequest, parts: bytes) -> pb.Reply:
        run = self._run_at(context, ENCAPSULATE)
        demand(
            [signed_list.sender for signed_list in content.encapsulations] == list(run.roster),
            "roster",
        )
        marks: dict[tuple[str, str], bytes] = {}
        for one in content.encapsulations:
            marks |= self._list(run, one)
        lower = [country for country in run.roster if country < self.name]
        ciphertexts = split_by_country(parts, lower, CIPHERTEXT)
        for other, ciphertext in ciphertexts.items():
            mark = bind(context, ENCAPSULATE, other, self.name, ciphertext)
            demand(mark == marks[other, self.name], "not-authentic")
        run.ciphertexts = marks
        bodies = [signed_list.body for signed_list in content.encapsulations]
        run.transcript = transcript_of(context, run.digests, bodies)
        macs = self._keep_links(run, self._secrets(run, ciphertexts))
        return pb.Reply(confirmation=self._sign(context, CONFIRM, COORDINATOR, serialised(macs)))

    def _list(self, run: Run, signed: pb.Signed) -> dict[tuple[str, str], bytes]:
        """Return ciphertext digests by sender and receiver, of a list for exactly our bundles."""
        sender = signed.sender
        body = parsed(pb.Encapsulations, self._read(signed, run.context, ENCAPSULATE, sender))
        higher = [(country, run.digests[country]) for country in run.roster if country > sender]
        listed = [(signed.receiver, signed.receiver_bundle) for signed in body.encapsulations]
        demand(body.sender_bundle == run.digests[sender] and listed == higher, "not-authentic")
        demand(sender != self.name or signed == run.sent[ENCAPSULATE], "not-authentic")
        return {
            (sender, signed.receiver): signed.ciphertext_digest for signed in body.encapsulations
        }

    def _secrets(self, run: Run, ciphertexts: Mapping[str, bytes]) -> dict[str, bytes]:
        assert run.x25519 is not None
        assert run.mlkem is not None
        secrets = {}
        for other in [country for country in run.roster if country != self.name]:
            x25519 = exchanged(run.x25519, run.bundles[other].x25519)
            mlkem = run.secrets.get(other) or run.mlkem.decapsulate(ciphertexts[other])
            secrets[other] = Pair.of(self.name, other).secret(run, x25519, mlkem)
        return secrets

    def _keep_links(self, run: Run, secrets: Mapping[str, bytes]) -> pb.Confirmations:
        """Store the expected MACs and the links; erase every key of the set-up."""
        for other, secret in secrets.items():
            run.expected[other] = confirmation(secret, run.transcript, other, self.name)
            run.links[other] = Pair.of(self.name, other).link(secret, run.transcript, CONFIRM)
        run.x25519, run.mlkem, run.secrets, run.stage = None, None, {}, CONFIRM
        macs = {o: confirmation(s, run.transcript, self.name, o) for o, s in secrets.items()}
        return pb.Confirmations(macs=joined(macs))

    # ---- a round -------------------------------------------------------------------------

    def _contribute(
        self, context: bytes, content: pb.ContributeRequest, model: bytes, parts: bytes
    ) -> pb.Reply:
        run = self._run_at(self.run.context if self.run else b"", CONFIRM)
        mechanism = self.terms.mechanism(content.phase_kind)
        demand(run.last < content.round <= min(LARGEST_ROUND, run.last + MAX_SKIPPED), "stale")
        limit = mechanism.integer("rounds")
        demand(run.contributed.count(content.phase_kind) < limit, "budget")
        demand(context == round_context(self.terms, run, content.round, mechanism, model), "stale")
        others = [country for country in run.roster if country != self.name]
        for other, mac in split_by_country(parts, others, MAC).items():
            demand(hmac.compare_digest(mac, run.expected[other]), "not-authentic")
        values = self.record(content.round, content.phase_kind, model)
        self._advance(run, content.round)
        run.contributed.append(content.phase_kind)
        run.last = content.round
        self.round = round_keys(self.name, content.round, context, run.links)
        self._advance(run, content.round + 1)
        return self._contribution(self.round, mechanism, values)

    def _advance(self, run: Run, to: int) -> None:
        while run.link_round < to:
            for other, link in run.links.items():
                run.links[other] = Pair.of(self.name, other).link(link, run.transcript, CONTRIBUTE)
            run.link_round += 1

    def _contribution(self, now: Round, mechanism: Mechanism, values: Sequence[int]) -> pb.Reply:
        assert self.run is not None
        roster = self.run.roster
        polynomial = [self._below_prime() for _ in range(self.terms.threshold(len(roster)))]
        shares = {country: share_of(polynomial, at) for at, country in enumerate(roster, 1)}
        now.own_share = shares[self.name]
        commitment = partial(bind, now.context, CONTRIBUTE, self.name)
        seed = polynomial[0].to_bytes(32, "big")
        sealed = self._sealed(now, shares, commitment(EVERYBODY, seed))
        words = packed(values, mechanism.lane_bits(len(roster)))
        own_key = own_mask_key(seed, now.context, self.name)
        masked_bytes = masked(words, self.name, own_key, now.masks).astype("<u8").tobytes()
        commitments = b"".join(commitment(country, shares[country]) for country in roster)
        head = pb.ContributionHead(round=now.number, seed_commitment=commitment(EVERYBODY, seed))
        head.versions_digest = versions_digest(self.terms.versions)
        head.words_digest = words_digest(now.context, self.name, masked_bytes)
        head.commitments_digest = commitments_digest(now.context, self.name, commitments)
        now.head = self._sign(now.context, CONTRIBUTE, EVERYBODY, serialised(head))
        contribution = pb.Contribution(head=now.head, versions=self.terms.versions)
        contribution.shares, contribution.commitments = joined(sealed), commitments
        return pb.Reply(contribution=contribution, words=masked_bytes)

    def _below_prime(self) -> int:
        while (drawn := int.from_bytes(self.draw(32), "big")) >= PRIME:
            pass
        return drawn

    def _sealed(self, now: Round, shares: Mapping[str, bytes], mark: bytes) -> dict[str, bytes]:
        sealed = {}
        for other, key in now.sealers.items():
            nonce = self.draw(12)
            binding = bind(now.context, CONTRIBUTE, self.name, other, mark)
            sealed[other] = nonce + AESGCM(key).encrypt(nonce, shares[other], binding)
        now.sealers = {}
        return sealed

    # ---- the set and the answer ----------------------------------------------------------

    def _open_round(self, context: bytes, at: int) -> Round:
        now = self.round
        if now is None or now.answered:
            raise RefusedRequest("stale")
        demand((now.context, now.number) == (context, at), "stale")
        return now

    def _check_set(self, countries: Sequence[str]) -> tuple[str, ...]:
        assert self.run is not None
        roster = self.run.roster
        demand(list(countries) == sorted(set(countries) & set(roster)), "roster")
        demand(self.name in countries, "roster")
        enough = max(self.terms.floor, self.terms.threshold(len(roster)))
        demand(len(countries) >= enough, "roster")
        return tuple(countries)

    def _agree(self, context: bytes, content: pb.AgreeRequest) -> pb.Reply:
        now = self._open_round(context, content.round)
        chosen = self._check_set(content.countries)
        demand(not now.signed, "stale")
        assert self.run is not None
        demand(len(chosen) < len(self.run.roster), "roster")
        now.signed = chosen
        now.masks = {country: key for country, key in now.masks.items() if country not in chosen}
        body = pb.Assent(round=now.number, countries=chosen)
        return pb.Reply(assent=self._sign(context, AGREE, EVERYBODY, serialised(body)))

    def _answer(
        self, context: bytes, content: pb.AnswerRequest, parts: bytes, committed: bytes
    ) -> pb.Reply:
        now = self._open_round(context, content.round)
        chosen = self._check_set(content.countries)
        demand(now.signed in {(), chosen}, "roster")
        self._check_assents(now, chosen, content.assents)
        marks = self._seed_commitments(now, chosen, content)
        sealed = split_by_country(
            parts, [country for country in chosen if country != self.name], SEALED
        )
        opened = {self.name: now.own_share}
        opened |= {
            o: share for o, country in sealed.items() if (share := self._opened(o, country, marks))
        }
        if committed:
            marked = split_by_country(committed, list(sealed), 32)
            for owner in [owner for owner in opened if owner != self.name]:
                mark = bind(context, CONTRIBUTE, owner, self.name, opened[owner])
                if mark != marked[owner]:
                    del opened[owner]
        unusable = [country for country in chosen if country not in opened]
        body = pb.Answer(round=now.number, shares=joined(dict.fromkeys(chosen, NOTHING) | opened))
        body.unopenable.extend(unusable)
        if committed:
            body.compared, body.keys = True, b"".join(now.openers[owner] for owner in unusable)
        body.masks = joined(
            {country: key for country, key in now.masks.items() if country not in chosen}
        )
        now.masks, now.openers, now.own_share, now.answered = {}, {}, b"", True
        return pb.Reply(answer=self._sign(context, ANSWER, COORDINATOR, serialised(body)))

    def _check_assents(
        self, now: Round, chosen: tuple[str, ...], given: Sequence[pb.Signed]
    ) -> None:
        assert self.run is not None
        roster = self.run.roster
        if chosen == roster:
            return
        senders = [signed.sender for signed in given]
        demand(len(given) >= self.terms.threshold(len(roster)), "roster")
        demand(senders == sorted(set(senders)) and set(senders) <= set(chosen), "roster")
        for signed in given:
            body = parsed(pb.Assent, self._read(signed, now.context, AGREE, signed.sender))
            demand((body.round, tuple(body.countries)) == (now.number, chosen), "roster")

    def _seed_commitments(
        self, now: Round, chosen: Sequence[str], content: pb.AnswerRequest
    ) -> dict[str, bytes]:
        demand([signed.sender for signed in content.heads] == list(chosen), "roster")
        marks, named_digests = {}, set()
        for signed in content.heads:
            demand(len(signed.body) <= LARGEST_HEAD, "malformed")
            demand(signed.sender != self.name or signed == now.head, "not-authentic")
            body = self._read(signed, now.context, CONTRIBUTE, signed.sender)
            head = parsed(pb.ContributionHead, body)
            demand(head.round == now.number, "malformed")
            marks[signed.sender] = head.seed_commitment
            named_digests.add(head.versions_digest)
        demand(
            [versions_digest(versions) for versions in content.versions] == sorted(named_digests),
            "malformed",
        )
        for versions in content.versions:
            check_versions(versions, self.terms.versions)
        return marks

    def _opened(self, owner: str, sealed: bytes, marks: Mapping[str, bytes]) -> bytes:
        """Return the share that the owner sealed for this country; empty if it does not open."""
        now = self.round
        assert now is not None
        binding = bind(now.context, CONTRIBUTE, owner, self.name, marks[owner])
        try:
            return AESGCM(now.openers[owner]).decrypt(sealed[:12], sealed[12:], binding)
        except (InvalidTag, ValueError):
            return b""
