"""The words of the design as enums: one spelling in code, store, log, screen and documentation.

Nothing here decides anything; `policy/` decides, in these words.
"""

from __future__ import annotations

from enum import Enum


class Word(str, Enum):
    """A word that prints and serialises as itself."""

    def __str__(self) -> str:
        return str(self.value)


class Phase(Word):
    """What the supervisor holds an agent to."""

    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    PARKED = "parked"
    DOWN = "down"
    HELD = "held"
    REFUSED = "refused"
    STOPPED = "stopped"
    OBSERVED = "observed"


class State(Word):
    """What an agent that is up does."""

    IDLE = "idle"
    WORKING = "working"
    WAITING = "waiting"
    LIMITED = "limited"
    STUCK = "stuck"
    WEDGED = "wedged"
    UNKNOWN = "unknown"


class Source(Word):
    """Who says what an agent does, the most trusted first."""

    STATUS_FILE = "status-file"
    HOOK = "hook"
    TRANSCRIPT = "transcript"
    TITLE = "title"
    SCREEN = "screen"

    @property
    def rank(self) -> int:
        """How far from the most trusted it is."""
        return list(Source).index(self)


class FaultKind(Word):
    """What kept a client from an answer."""

    USAGE_LIMIT = "usage-limit"
    CREDIT = "credit"
    """Nothing is left that was paid for; no time brings it back."""
    CREDENTIALS = "credentials"
    RATE_LIMIT = "rate-limit"
    """Too many requests at once (429), which is no usage limit."""
    OVERLOAD = "overload"
    NETWORK = "network"
    SERVER_ERROR = "server-error"
    OTHER = "other"


class BootStage(Word):
    """How far the start of a client has come."""

    WAIT = "wait"
    DIALOG = "dialog"
    """It asks something, and does not go on without an answer."""
    READY = "ready"
    FAILED = "failed"
    """It will not become ready."""


class Credentials(Word):
    """Whether an account home can be used, as far as its files tell."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


class Mode(Word):
    """Whether the supervisor acts on an agent or only watches and shows it (`failover.mode`)."""

    MANAGE = "manage"
    OBSERVE = "observe"


class Restart(Word):
    """What happens after an agent ended by itself (`failover.restart`)."""

    LAZY = "lazy"
    """It waits for a wake, unless it ended with an assignment."""
    ON_WORK = "on-work"
    """It comes back by itself when it ended with work: queued tasks, or an assignment."""
    ALWAYS = "always"
    """It comes back, also after its own exit 0."""


class Kind(Word):
    """What an agent's conversation is for (`failover.kind`)."""

    EXECUTOR = "executor"
    """It carries out one topic after another; a new topic begins a new conversation."""
    CONVERSATION = "conversation"
    """It is one long conversation, whatever the topic."""


class Asked(Word):
    """Who wants a bring-up, which is what decides whether a launch may follow."""

    START = "start"
    """An operator's `start` or `restart`: launches, and clears `stopped` and a given-up crash loop."""
    WAKE = "wake"
    """A `wake`: launches, and clears nothing."""
    POLICY = "policy"
    """The restart policy: launches what ended by itself, and clears nothing."""
    SWITCH = "switch"
    """A switch: launches what was ended for it and is on its way still, and clears nothing."""
    RESTORE = "restore"
    """circusd's own start, or a section that reloadconfig brought: the fleet as it was."""
    ADOPT = "adopt"
    """A reload, a respawned keeper, a tick: only what is alive is taken in again."""


class Liveness(Word):
    """What the process table and tmux say about an agent right now."""

    LIVE = "live"
    DEAD = "dead"
    """Proven: the recorded process is gone, or nothing of that name runs."""
    REMAINS = "remains"
    """Dead, but something of the launch is left (a dead pane, a survivor) and must be cleared first."""
    UNKNOWN = "unknown"
    """A probe failed or timed out: nothing follows from it."""


class IntentAction(Word):
    """What a deliberate end is for; it is written before anything is killed."""

    PARK = "park"
    RESTART = "restart"
    FRESH = "fresh"
    STOP = "stop"
    REMOVE = "rm"
    CLEAR = "clear"
    """The remains of a launch that is already dead are cleared away."""
    STUCK = "stuck"
    """It broke its heartbeat contract: it is ended, counted as a death, and relaunched."""
    SWITCH = "switch"
    """It is ended to go on in the same conversation on another account."""
    LIMIT = "limit"
    """It is ended since nothing can be done on its account: it is held until the reset, or parked."""


class WakeMode(Word):
    """How a launch begins, or that it did not."""

    FRESH = "fresh"
    RESUME = "resume"
    REFUSED = "refused"
    FAILED = "failed"


class WakeAsked(Word):
    """What a wake asked for."""

    FRESH = "fresh"
    RESUME = "resume"
    NOTHING = "nothing"


class WakeCause(Word):
    """Why a launch is fresh or a resume; stored and logged before it."""

    FRESH_REQUESTED = "fresh-requested"
    RESUME_REQUESTED = "resume-requested"
    NOTHING_TO_RESUME = "resume-requested-nothing-to-resume"
    FIRST_WAKE = "first-wake"
    LOST_RESUME = "lost-resume"
    LOST_NO_RESUME = "lost-no-resume"
    CRASH_OR_SELF_CLOSE = "crash-or-self-close"
    CONVERSATION_RESUME = "idle-reaped-conversation"
    CONVERSATION_NO_RESUME = "idle-reaped-conversation-no-resume"
    NEW_TOPIC = "idle-reaped-new-topic"
    PARKED_RESUME = "idle-reaped-resume"
    PARKED_NO_RESUME = "idle-reaped-no-resume"
    TOO_OLD = "idle-reaped-too-old"


class ParkedBy(Word):
    """Who ended a launch so that the next wake resumes it."""

    IDLE_REAPER = "idle-reaper"
    PARK = "park"
    SELF = "self"
    OPERATOR_STOP = "operator-stop"
    OPERATOR_RESTART = "operator-restart"
    SWITCH = "switch"
    LIMIT = "limit"


class Loop(Word):
    """What the crash-loop guard holds an agent to."""

    CLOSED = "closed"
    """Nothing is held back."""
    OPEN = "open"
    """Held until a time; then it half-opens."""
    HALF_OPEN = "half-open"
    """One launch is on trial: the next counted death holds it again, for longer."""
    GIVEN_UP = "given-up"
    """Held until `reset`, or an operator's `start`."""


class TaskState(Word):
    """Where a task is."""

    QUEUED = "queued"
    TYPING = "typing"
    """A worker types it into its agent's terminal."""
    DELIVERED = "delivered"
    """The agent was seen to have taken it."""
    CANCELLED = "cancelled"


class TaskKind(Word):
    """What a text in an agent's queue is for."""

    TASK = "task"
    """Somebody's task, which waits for as long as it takes."""
    ASSIGNMENT = "assignment"
    """The text of an assignment, or that it goes on with it."""
    NUDGE = "nudge"
    """A reminder to an agent that does not get on; it is not typed late."""
    CONTINUE = "continue"
    """That a turn goes on which a limit or a switch has interrupted."""
    TELL = "tell"
    """Somebody's word to the launch that runs now; it is not typed late."""


class AssignmentState(Word):
    """Where an assignment is."""

    QUEUED = "queued"
    """It waits: for an agent, or (with an owner) for its owner to take it."""
    DELIVERED = "delivered"
    """Its owner was seen to have taken it."""
    WORKING = "working"
    """Its owner was seen to work since it took it."""
    DONE = "done"
    FAILED = "failed"
    """Its owner said that it cannot be done."""
    ORPHANED = "orphaned"
    """Too many owners' launches died with it: a person has to look at it."""
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nobody is to work on it any more; an orphaned one waits for a person."""
        return self in (AssignmentState.DONE, AssignmentState.FAILED, AssignmentState.CANCELLED)


class Orphans(Word):
    """Where an assignment goes that its owners' launches keep dying with (`failover.on_orphan`)."""

    PERSON = "person"
    """It waits for a person: `reassign` or `cancel`."""
    POOL = "pool"
    """Back to its pool, for another agent; to a person when that did not help either."""


class OnLimit(Word):
    """What happens to an agent whose account can do nothing for it (`failover.on_limit`)."""

    SWITCH = "switch"
    """It goes on in the same conversation on another account; held while every one is exhausted."""
    WAIT = "wait"
    """It is ended and held, and goes on after the reset."""
    PARK = "park"
    """It is parked, and waits for a wake."""
    NOTIFY = "notify"
    """It is left alone, and somebody is told."""


class AccountState(Word):
    """What is known of an account."""

    AVAILABLE = "available"
    """The model has answered on it, and nothing has failed since."""
    LIMITED = "limited"
    """A limit of the whole account is reached, or its credit is spent."""
    CREDENTIALS = "credentials"
    """It is not logged in any more: a person has to see to it."""
    OVERLOADED = "overloaded"
    """The service is busy; the client tries again by itself, and we wait."""
    UNKNOWN = "unknown"

    @property
    def exhausted(self) -> bool:
        """Whether nothing can be done on it."""
        return self in (AccountState.LIMITED, AccountState.CREDENTIALS)


class NoticeKind(Word):
    """What somebody is told of (`notify` in failover.yaml)."""

    HELD = "held"
    GIVEN_UP = "given-up"
    LAUNCH_REFUSED = "launch-refused"
    RECOVERY_FAILED = "recovery-failed"
    """An agent that died with an assignment could not be brought back to it."""
    MASS_DEATH = "mass-death"
    SERVER_DEATH = "server-death"
    LIMITED = "limited"
    """An account has reached a limit."""
    ALL_LIMITED = "all-limited"
    """Every account of a runtime has."""
    CREDENTIALS = "credentials"
    """An account is not logged in any more."""
    SWITCHED = "switched"
    """An agent goes on on another account."""
    SWITCH_FAILED = "switch-failed"
    """An agent could not be moved, and is parked on its old account."""
    ORPHANED = "orphaned"
    STUCK = "stuck"
    NO_PROGRESS = "no-progress"
    WAITING = "waiting"
    """An agent waits for a person: a permission, a dialog, a login."""
    QUEUED_LONG = "queued-long"
    TEST = "test"
    """Sent by `failoverctl notify test`."""


class Cause(Word):
    """Why an agent is in its phase, or how a launch ended, or why a wake was refused."""

    FIRST_START = "first-start"
    OPERATOR_START = "operator-start"
    OPERATOR_STOP = "operator-stop"
    OPERATOR_RESTART = "operator-restart"
    OPERATOR_WAKE = "operator-wake"
    PARKED = "parked"
    FRESH = "fresh"
    REMOVED = "removed"
    RESTORED = "restored"
    RESTART_POLICY = "restart-policy"
    INTERRUPTED_START = "interrupted-start"
    ADOPTED = "adopted"
    ADOPTED_FOREIGN = "adopted-foreign"
    OBSERVED = "observed"
    SETTINGS = "settings"
    SHARED_STATE = "shared-state"
    WORKING_DIR = "working-dir"
    ACCOUNT = "account"
    """The account's home, or its `env_file`, would not let the client do what it should."""
    CONVERSATION_IN_USE = "conversation-in-use"
    """A process of another launch has the conversation open: two writers would fork it."""
    CRASH_LOOP = "crash-loop"
    GIVEN_UP = "given-up"
    UNKNOWN_AGENT = "unknown-agent"
    STOPPED = "stopped"
    STOPPED_MID_WAKE = "stopped-mid-wake"
    ALREADY_LIVE = "already-live"
    RESUME_REQUESTED_NOTHING_TO_RESUME = "resume-requested-nothing-to-resume"
    TMUX_MISSING = "tmux-missing"
    SERVER_WEDGED = "server-wedged"
    STATE_DIR = "state-dir"
    GATE_FAILED = "gate-failed"
    LAUNCH_FAILED = "launch-failed"
    EXITED = "exited"
    SIGNALED = "signaled"
    SESSION_GONE = "session-gone"
    SERVER_LOST = "server-lost"
    SERVER_ENDED = "server-ended"
    """Its tmux server ended in an orderly way, and nobody of ours meant it to."""
    HOST_REBOOT = "host-reboot"
    ENDED_UNKNOWN = "ended-unknown"
    STUCK = "stuck"
    """It was ended, since it had broken its heartbeat contract."""
    USAGE_LIMIT = "usage-limit"
    """It exited by itself while it was at a usage limit, or out of credit."""
    CREDENTIALS = "credentials"
    """It exited by itself, or did not become ready, for want of a login."""
    SWITCHED = "switched"
    """It was ended to go on on another account; or it was launched there."""
    SWITCH_FAILED = "switch-failed"
    """A step of its switch failed: it is parked, and resumable, on its old account."""
    LIMITED = "limited"
    """Nothing can be done on its account, nor on another one: it goes on after the reset."""


class ServerCause(Word):
    """Why a tmux server ended (`ev=server-exit`)."""

    KILLED = "killed"
    CRASHED = "crashed"
    OOM_LIKELY = "oom-likely"
    ORDERLY_UNINTENDED = "orderly-unintended"
    UNKNOWN = "unknown"


class Detected(Word):
    """When a server's death was noticed."""

    LIVE = "live"
    POST_FACTUM = "post-factum"
    """Nobody watched it: it was found gone."""


class Role(Word):
    """What somebody who is signed in to the web console may do."""

    OPERATOR = "operator"
    """Everything the arbiter's verbs can."""
    VIEWER = "viewer"
    """Look, and nothing else."""


class Harm(Word):
    """What a verb may cost, which the web console asks about before it is sent."""

    NONE = "none"
    ENDS = "ends"
    """Processes end; what they were at can be gone on with."""
    LOSES = "loses"
    """Something is gone for good: a conversation, a record, work or tasks that waited."""
