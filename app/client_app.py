"""The ClientApp: looks up the client half that a message asks for, runs it, and answers.

It is the same in one process, under `flwr run` and on a SuperNode. What a client does is decided by the run
config and the message alone, and its randomness by seed, round and client-id.
"""

import time
from collections.abc import Callable
from typing import final

from flwr.app import Context, Message, RecordDict

from app.client import work
from app.client.admission import admit
from app.client.audit_answers import answers_of
from app.client.kept_state import keep_state
from app.client.node import Node
from app.client.plain_training import answered, further_records, job_of, pausing_training
from app.client.secure import register, train_securely
from app.client.seeded import seed_layers
from app.client.words import said
from app.messages.packing import packed
from app.project import LoadedProject, bind, bound, explained, loaded_from
from strategies.algorithm import Handler
from strategies.analytics.diagnosis import SECONDS, gradient_answer
from strategies.client.evaluation import evaluate, evaluate_by
from strategies.client.pausing import Pausing, PausingApp
from strategies.client.training import ClientHalf, ClientJob, LocalResult
from strategies.core import wire
from strategies.core.errors import LetheError, SettingsRefused
from strategies.core.examples import least_groups
from strategies.core.seeds import derive_seed
from strategies.figures import record_of
from strategies.layers.compression.client import LostVersion
from strategies.layers.encryption.client import decrypted_reply, encrypted_reply
from strategies.layers.privacy.client import BudgetSpent, ClientPrivacy, train_privately
from strategies.personal import measuring as personal
from strategies.registry import all_traits, lookup
from unlearning.audit import own_attack
from unlearning.audit.evidence import OwnData, answer_question
from unlearning.holdings import holdings_of
from unlearning.methods import METHODS, ClientAction, ForgetWork


@final
class LetheClientApp(PausingApp):
    """The ClientApp of every run."""

    def pausing(self, message: Message, context: Context) -> Pausing[RecordDict] | None:
        """Return what answers a message to train plainly; None for any other."""
        return pausing_training(message, context)


app = LetheClientApp(mods=[packed, admit, keep_state, seed_layers])


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say who this client is and what it holds; a client without usable data, or key, says why.

    Clients that were promised no protection tell their labels; all tell their number of examples except those
    of secure sums and of privacy at the client level.
    """
    node = Node.of(message, context)
    partitions = int(str(context.node_config.get(wire.NUM_PARTITIONS, 0)))
    config: dict[str, wire.ConfigValue] = {wire.NUM_PARTITIONS: partitions}
    if (keep := node.own("strategy.keep")) is not None:
        config[wire.KEEP] = keep
    try:
        examples = node.examples()
        node.secret()  # A client without the key could not answer in any round
        if node.config.strategy.traits.one_model:
            node.check_model()
        else:
            work.check(node)
        trained = node.training_examples()
        counts = trained.group_counts(node.num_groups or least_groups(examples))
    except Exception as error:  # noqa: BLE001 (a project's code raises anything; what is not its own goes on)
        detail = _reason(node, error)
        return wire.reply_to(
            message, node.client_id, {wire.NUM_EXAMPLES: 0}, config=config | {wire.DETAIL: detail}
        )
    if node.hides_size:
        return wire.reply_to(
            message, node.client_id, {wire.NUM_EXAMPLES: 1}, config=config | {wire.HIDDEN: True}
        )
    metrics: dict[str, int | list[int]] = {wire.NUM_EXAMPLES: len(trained)}
    if (own := node.own_test) is not None:
        metrics[wire.NUM_TEST] = len(own)
    if not node.protects_data:
        metrics[wire.LABEL_COUNTS] = counts
    return wire.reply_to(message, node.client_id, metrics, config=config)


def _reason(node: Node, error: Exception) -> str:
    """Return why a client cannot take part, without what tells of its data if that is to be hidden."""
    if not isinstance(error, LetheError):
        if node.work.loaded is None:
            raise error
        error = explained("its data cannot be read", error)
    return said(node, error)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the model as the run's strategy says, and send the new parameters."""
    node = Node.of(message, context)
    node.keep_tags(context.state)
    if node.is_secure:
        return _train_securely(node, message, context)
    link, secret = node.link(message.content, context.state), node.secret()
    half, privacy = lookup(node.config.strategy.name).client, node.privacy(context.state)
    try:
        arrays = message.content.array_records[wire.ARRAYS] if link is None else link.receive()
        job = job_of(node, arrays, message, context)
        if not len(job.examples) and node.config.privacy.unit != "client-local":
            raise BudgetSpent(wire.NOTHING_LEFT)
        result = half(job) if privacy is None else _trained_privately(node, half, job, privacy)
        node.keep_local(result.model)
    except (BudgetSpent, LostVersion) as reason:
        if privacy is not None:
            privacy.note_refusal()
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})
    if secret is not None:
        delta = wire.update_since(arrays, result.model.state_dict())
        return encrypted_reply(message, node.client_id, secret, delta, result.num_examples)
    result.model.zero_grad(set_to_none=True)  # As large as the model, a copy of which is made next
    if link is None:
        content = answered(node.client_id, result, node.record_of(result.model))
        return Message(content, reply_to=message)
    reply = link.reply(
        message,
        node.client_id,
        {**result.metrics, wire.NUM_EXAMPLES: result.num_examples},
        result.model,
        derive_seed(node.seed, "up", node.client_id, node.server_round),
        lambda: evaluate(result.model, job.examples, task=job.task).accuracy,
    )
    reply.content.update(further_records(result))
    return reply


def _trained_privately(node: Node, half: ClientHalf, job: ClientJob, privacy: ClientPrivacy) -> LocalResult:
    result = train_privately(half, job, privacy)
    if wire.MASK in node.message_config:
        node.prune(result.model)
    return result


@app.query("gradient")
def gradient(message: Message, context: Context) -> Message:
    """Answer with the model plus the gradient of the mean loss, and the seconds of local training."""
    node = Node.of(message, context)
    arrays = message.content.array_records[wire.ARRAYS]
    job = job_of(node, arrays, message, context)
    began = time.perf_counter()
    job.train_model(job.model)
    seconds = time.perf_counter() - began
    arrays = gradient_answer(node.model(arrays), job.examples, job.task)
    return wire.reply_to(
        message, node.client_id, {wire.NUM_EXAMPLES: len(job.examples), SECONDS: seconds}, arrays
    )


@app.evaluate("personal")
def evaluate_personal(message: Message, context: Context) -> Message:
    """Measure the model on data like the client's own, before and after personalisation."""
    node = Node.of(message, context)
    own = lookup(node.config.strategy.name).personalise
    if own is None:
        raise SettingsRefused(f"{node.config.strategy.name} personalises nothing")
    job = job_of(node, message.content.array_records[wire.ARRAYS], message, context)
    has_own = work.own_path(node) is not None or node.own_test is not None
    test = work.test_data(node)
    measured_on = node.test_examples() if test is None else test
    numbers = personal.measure(job, own, measured_on, node.num_groups, own_test=has_own)
    return wire.reply_to(message, node.client_id, numbers)


@app.query("decrypt")
def decrypt(message: Message, context: Context) -> Message:
    """Decrypt the mean of a round's encrypted updates."""
    node = Node.of(message, context)
    secret = node.secret()
    if secret is None:
        raise SettingsRefused("asked to decrypt, but this client's updates are not encrypted")
    return decrypted_reply(message, node.client_id, secret)


def _train_securely(node: Node, message: Message, context: Context) -> Message:
    half, privacy = lookup(node.config.strategy.name).client, node.privacy(context.state)

    def train() -> LocalResult | None:
        job = job_of(node, message.content.array_records[wire.ARRAYS], message, context)
        if not len(job.examples):
            return None
        result = half(job) if privacy is None else _trained_privately(node, half, job, privacy)
        node.keep_local(result.model)
        return result

    try:
        return train_securely(node, message, context, train)
    except BudgetSpent as reason:
        if privacy is not None:
            privacy.note_refusal()
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: str(reason)})


def _own_handler(answer: Handler) -> Callable[[Message, Context], Message]:
    """Return the handler of a message type of an algorithm's own."""

    def handle(message: Message, context: Context) -> Message:
        node = Node.of(message, context)
        node.keep_tags(context.state)
        reply = answer(work.work_of(node, message, context))
        return wire.reply_to(message, node.client_id, reply.metrics, reply.arrays)

    return handle


@app.evaluate()
def evaluate_model(message: Message, context: Context) -> Message:
    """Evaluate the model on the examples that the client holds out."""
    node = Node.of(message, context)
    own = node.test_examples()
    if not len(own):
        reason = (
            "it holds out no example of its own to measure on (data.local-test-share), and has no test data"
        )
        return wire.reply_to(message, node.client_id, {}, config={wire.REFUSED: reason})
    model = node.model(message.content.array_records[wire.ARRAYS])
    result, sums = evaluate_by(node.figures, model, own)
    metrics = {wire.NUM_EXAMPLES: result.num_examples, wire.ACCURACY: result.accuracy, wire.LOSS: result.loss}
    reply = wire.reply_to(message, node.client_id, metrics)
    if sums:
        reply.content[wire.SUMS] = record_of(sums)
    return reply


@app.query("holdings")
def holdings(message: Message, context: Context) -> Message:
    """Say whether the client's data are those of the run, and which of them a request names and leaves."""
    node = Node.of(message, context)
    spec = node.forget_spec()
    private, data = node.protects_data, node.data_state(context.state)
    answer = holdings_of(spec, node.examples(), data, private=private)
    return wire.reply_to(message, node.client_id, {}, config=answer)


@app.query("audit")
def audit(message: Message, context: Context) -> Message:
    """Answer the audit's questions about a model on the client's forgotten and retained examples."""
    node = Node.of(message, context)
    summed = answers_of(node.config) == "aggregate"
    if not node.config.strategy.traits.one_model:
        if summed:
            name = node.config.strategy.name
            raise SettingsRefused(
                f'audit.answers: given "aggregate", but with {name} only "examples" is made'
            )
        metrics, arrays = work.answer_audit(node, message, context)
    else:
        spec, examples = node.forget_spec(), node.examples()
        if own_attack.is_wanted(message.content):
            if node.protects_data:
                raise SettingsRefused("audit.shadows: clients of a protected run attack nothing; allowed 0")
            content, state = message.content, context.state
            found = own_attack.answer_attack(content, examples, node.model, spec, state, node.task)
            return wire.reply_to(message, node.client_id, {}, config=found)
        metrics, arrays = answer_question(
            message.content,
            examples,
            node.model,
            spec=spec,
            summed=summed,
            own=OwnData(node.test_examples, node.altered),
            task=node.task,
        )
    return wire.reply_to(message, node.client_id, metrics, arrays)


def _method_handler(action: ClientAction) -> Callable[[Message, Context], Message]:
    def handle(message: Message, context: Context) -> Message:
        node = Node.of(message, context)
        examples = node.examples()
        forget, retain = node.forget_spec().split(examples)
        task = ForgetWork(
            message.content.array_records,
            node.model,
            node.message_config,
            retain,
            forget,
            node.config.train,
            node.client_id,
            node.generator(),
            node.config.strategy,
            node.server_round,
            node.task,
        )
        answer = action(task)
        return wire.reply_to(message, node.client_id, answer.metrics, answer.arrays)

    return handle


def _register(message_type: str, handle: Callable[[Message, Context], Message]) -> None:
    category, name = message_type.split(".")
    getattr(app, category)(name)(handle)


def _register_all() -> None:
    for method in METHODS.values():
        for message_type, action in method.actions.items():
            _register(message_type, _method_handler(action))
    for traits in all_traits():
        for message_type, answer in lookup(traits.name).handlers.items():
            _register(message_type, _own_handler(answer))


_register_all()
register(app)


@final
class ProjectClientApp(PausingApp):
    """The same ClientApp, bound to a project in whatever process it works.

    Flower's simulation sends it to processes that have not imported the module of the user's that made it.
    """

    def __init__(self, project: LoadedProject) -> None:
        super().__init__()
        self._reference = project.reference
        self._folder = project.folder

    def __call__(self, message: Message, context: Context) -> Message:
        """Bind the project, if this process has not, and answer."""
        self._bind()
        return app(message, context)

    def pausing(self, message: Message, context: Context) -> Pausing[RecordDict] | None:
        """Bind the project, if this process has not, and return what answers a message."""
        self._bind()
        return app.pausing(message, context)

    def _bind(self) -> None:
        found = bound()
        if found is None or found.reference != self._reference:
            bind(loaded_from(self._reference, self._folder))
