"""What a batch of events means for its payments: verdicts, rows, facts and questions.  Nothing is read or written."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from services.payments import announce
from services.payments import fold_records as records
from services.payments.domain import (
    Fold,
    PaymentState,
    StripeFact,
    is_foreign,
    is_undecided,
    merge,
    state,
    unlinked_reasons,
    untold_refunds,
)
from services.payments.fold_records import RawEvent, Row, Stored, Verdict, Wanted
from services.payments.gateway import (
    Nothing,
    Question,
    Thin,
    Understood,
    charge_subject,
    disputes_subject,
    invoice_subject,
    payment_subject,
    refunds_subject,
    translate,
)
from services.payments.saved_methods import Learnt, learnt
from shared import log
from shared.errors import FareboxError
from shared.events import PaymentChanged, derived_id
from shared.trace import Cause, trace_id

# Once this long has passed since a fact came, its second is over at Stripe, and the answer tells what was last in it.
SECOND_IS_OVER = timedelta(seconds=3)
# What a charge or a payment is waited for, most often comes by itself within seconds.
COMES_BY_ITSELF = timedelta(seconds=60)

# Why an event of that livemode is ignored by whoever is of the other.
OTHER_MODE = {
    True: "an event of live mode, and STRIPE_API_KEY is of test mode",
    False: "an event of test mode, and STRIPE_API_KEY is of live mode",
}

logger = log.get("fold")


@dataclass
class Batch:
    """What one batch is about to record."""

    now: datetime
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    charges: dict[str, str | None] = field(default_factory=dict)
    facts: dict[str, list[tuple[RawEvent, StripeFact]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    rows: list[Row] = field(default_factory=list)
    changes: list[tuple[PaymentChanged, Cause]] = field(default_factory=list)
    wanted: dict[tuple[str, str], Wanted] = field(default_factory=dict)
    learnt: list[Learnt] = field(default_factory=list)


def understand(event: RawEvent, livemode: bool | None) -> Understood | Verdict:
    """What it says, or what becomes of it without that.  `livemode` is the mode that is folded; None for both."""
    if livemode not in (None, event.livemode):
        return Verdict("ignored", detail=OTHER_MODE[event.livemode])
    try:
        return translate(event.body)
    except FareboxError as error:
        logger.warning(
            "stripe event parked",
            event_id=event.id,
            reason=error.detail,
            trace_id=trace_id(event.traceparent),
        )
        return Verdict("parked", detail=error.detail)


def note_charges(
    batch: Batch, understood: Sequence[tuple[RawEvent, Understood | Verdict]]
) -> set[str]:
    """Whose payment charges are, as the batch itself tells; returns those that it names without telling."""
    named = set()
    for _, said in understood:
        match said:
            case StripeFact(payment=None, charge=str(charge)):
                named.add(charge)
            case StripeFact(payment=str(payment), charges=charges):
                batch.charges |= dict.fromkeys(charges, payment)
            case Nothing(lonely_charge=str(charge)):
                batch.charges.setdefault(charge, None)
    return named - batch.charges.keys() - {""}


def assign(
    batch: Batch,
    understood: Sequence[tuple[RawEvent, Understood | Verdict]],
    known: dict[str, str | None],
) -> None:
    """Give each fact to its payment; one that names only a charge may have to wait until that is `known`."""
    for event, said in understood:
        match said:
            case StripeFact():
                _assign_fact(batch, event, said, known)
            case Nothing(reason=reason):
                batch.verdicts[event.position] = Verdict("ignored", detail=reason)
            case Thin(question=question):
                detail = "a thin event: what it is about is being fetched"
                _wait(batch, event, question.subject, detail)
                _want(batch, question, "a thin event", SECOND_IS_OVER)
            case Verdict():
                batch.verdicts[event.position] = said


def fold_payment(
    batch: Batch, payment: str, facts: Sequence[tuple[RawEvent, StripeFact]], stored: Stored | None
) -> None:
    folded = stored.fold if stored else Fold()
    own = []
    for event, fact in facts:
        if is_foreign(folded, fact):
            _refuse(batch, payment, event, folded)
        else:
            folded = merge(folded, fact)
            own.append((event, fact))
    if own and folded.is_known:
        _record_payment(batch, payment, own, (folded, stored))
    elif own:
        _await_payment(batch, payment, own)


def _assign_fact(
    batch: Batch, event: RawEvent, fact: StripeFact, known: dict[str, str | None]
) -> None:
    charge = fact.charge or ""
    payment = fact.payment or known.get(charge)
    if payment is not None:
        batch.facts[payment].append((event, fact))
    elif charge in known:
        # Named by the charge: should that turn out to belong to a payment, it is found again.
        detail = f"{charge} was made without a PaymentIntent"
        batch.verdicts[event.position] = Verdict("ignored", charge, detail)
    else:
        _wait(batch, event, charge, f"whose payment {charge} is, is not known yet")
        subject = charge_subject(charge)
        _want(batch, _question(subject, fact), records.WHOSE_PAYMENT, COMES_BY_ITSELF)


def _refuse(batch: Batch, payment: str, event: RawEvent, folded: Fold) -> None:
    """No two accounts share an id at Stripe: an operator must see what tells of this one elsewhere."""
    own = f"{'live' if folded.livemode else 'test'} mode, account {folded.account or 'our own'}"
    detail = (
        f"{payment} is of {own}: this event is of another mode or account, and not joined to it"
    )
    batch.verdicts[event.position] = Verdict("parked", detail=detail)
    logger.error(
        "stripe event parked",
        event_id=event.id,
        reason=detail,
        trace_id=trace_id(event.traceparent),
    )


def _record_payment(
    batch: Batch,
    payment: str,
    facts: Sequence[tuple[RawEvent, StripeFact]],
    folds: tuple[Fold, Stored | None],
) -> None:
    folded, stored = folds
    before = state(stored.fold) if stored else None
    _tell_operator(payment, facts, folded, before)
    remark = "; ".join(unlinked_reasons(folded)) or None
    for event, _ in facts:
        batch.verdicts[event.position] = Verdict("applied", payment, remark)
    if stored and folded == stored.fold:
        return
    row = _row(payment, folded, stored, before)
    batch.rows.append(row)
    if row.state != before:
        last = facts[-1][0]
        cause = Cause(f"stripe:{last.id}", last.traceparent)
        batch.changes.append((announce.change(row, batch.now), cause))
    known = stored and before and learnt(payment, stored.fold, before)
    now_known = learnt(payment, folded, row.state)
    if now_known is not None and now_known != known:
        batch.learnt.append(now_known)
    question_state(batch, row, before, max(fact.created for _, fact in facts))


def _await_payment(
    batch: Batch, payment: str, facts: Sequence[tuple[RawEvent, StripeFact]]
) -> None:
    for event, _ in facts:
        _wait(batch, event, payment, f"what {payment} itself is, nothing has said yet", payment)
    latest = max((fact for _, fact in facts), key=lambda fact: fact.created)
    subject = payment_subject(payment)
    _want(batch, _question(subject, latest), records.WHICH_PAYMENT, COMES_BY_ITSELF)


def _row(payment: str, folded: Fold, stored: Stored | None, before: PaymentState | None) -> Row:
    after = state(folded)
    if stored is None:
        return Row(derived_id("payment", payment), payment, 1, folded, after, is_new=True)
    revision = stored.revision + (after != before)
    return Row(stored.id, payment, revision, folded, after, is_new=False)


def question_state(batch: Batch, row: Row, before: PaymentState | None, second: int) -> None:
    """Ask what only Stripe can say of it.  `second` is when the last of the facts came about that led here."""
    folded, anomaly = row.fold, row.state.anomaly
    livemode, account = folded.livemode, folded.account or None
    if before is None and row.state.user_id is None and row.state.subscription_id is None:
        logger.warning("payment names neither user nor subscription", payment_id=str(row.id))
    subject = payment_subject(row.stripe_id)
    question = Question(subject, folded.phase, folded.second, livemode, account)
    if is_undecided(folded):
        _want(batch, question, "two states in one second: which was last?", SECOND_IS_OVER)
    if folded.invoice and not folded.links and (before is None or before.invoice_id is None):
        # What Stripe's billing made names nobody itself: its invoice, or that one's subscription, does.
        invoice = Question(invoice_subject(folded.invoice), 0, 0, livemode, account)
        _want(batch, invoice, records.WHOSE_INVOICE, COMES_BY_ITSELF)
    untold = untold_refunds(folded)
    if untold:
        refunds = Question(refunds_subject(row.stripe_id), 0, untold.second, livemode, account)
        _want(batch, refunds, records.UNTOLD_REFUNDS, COMES_BY_ITSELF)
    # Out of order, a refund comes before the money that it gives back: most contradictions pass.
    if anomaly and anomaly != str(untold) and (before is None or before.anomaly != anomaly):
        for question in _about_contradiction(row, max(second, folded.second)):
            _want(batch, question, records.CONTRADICTION, COMES_BY_ITSELF)


def _about_contradiction(row: Row, second: int) -> list[Question]:
    """The payment itself, and where more went than came, all that went: a refund's failure may be unheard of."""
    folded, seen = row.fold, row.state
    subjects = [payment_subject(row.stripe_id)]
    if seen.refunded_minor + seen.disputed_minor > seen.received_minor:
        subjects += [refunds_subject(row.stripe_id), disputes_subject(row.stripe_id)]
    return [
        Question(each, folded.phase, second, folded.livemode, folded.account or None)
        for each in subjects
    ]


def _tell_operator(
    payment: str,
    facts: Sequence[tuple[RawEvent, StripeFact]],
    folded: Fold,
    before: PaymentState | None,
) -> None:
    """A contradiction that Stripe's own answer did not end, or did."""
    answers = [event for event, fact in facts if fact.is_answer]
    if not answers:
        return
    trace = trace_id(answers[-1].traceparent or facts[-1][0].traceparent)
    was, anomaly = before and before.anomaly, state(folded).anomaly
    if anomaly:
        logger.error(
            "payment contradicts itself", stripe_id=payment, anomaly=anomaly, trace_id=trace
        )
    elif was:
        logger.warning("stripe ended a contradiction", stripe_id=payment, was=was, trace_id=trace)


def _question(subject: str, fact: StripeFact) -> Question:
    tells = fact.tells
    return Question(subject, 0, fact.created, tells.livemode, tells.account or None)


def _wait(
    batch: Batch, event: RawEvent, waiting_for: str, detail: str, payment: str | None = None
) -> None:
    batch.verdicts[event.position] = Verdict("received", payment, detail, waiting_for)


def _want(batch: Batch, question: Question, reason: str, delay: timedelta) -> None:
    """One question of a kind is enough: the one about the latest second."""
    key = (question.subject, reason)
    asked = batch.wanted.get(key)
    if asked is None or asked.question.second < question.second:
        batch.wanted[key] = Wanted(question, reason, batch.now + delay)
