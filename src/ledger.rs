//! The rules about money: what may be paid for, and when. Pure: no I/O, no clock, no JSON.

use serde::Serialize;

use crate::generation::Cost;

/// The state of an [`Attempt`](crate::Attempt).
///
/// Where two versions of one attempt meet, the later state in this order wins: a sign that the
/// generation exists counts more than a sign that it failed, and a person's decision more than both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// The request may have been sent, and no response named a generation so far.
    Sending,
    /// There is no video, and nothing was charged. The same request can be sent again.
    Failed,
    /// The server named the generation. Asking for it costs nothing.
    Waiting,
    /// The server has, or had, the video. Downloading it costs nothing.
    Completed,
    /// A person gave the attempt up: the same request can be sent, and charged, again.
    GivenUp,
}

impl State {
    pub(crate) const ALL: [State; 5] = {
        use State::*;
        [Sending, Failed, Waiting, Completed, GivenUp]
    };
}

/// What the rules look at in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) state: State,
    pub(crate) has_id: bool,
    /// The highest cost that any response named.
    pub(crate) cost: Cost,
}

impl Entry {
    /// The entry of a request that is about to be sent.
    pub(crate) const NEW: Entry = Entry {
        state: State::Sending,
        has_id: false,
        cost: Cost::Unsaid,
    };

    /// Unites two versions of one entry, field by field. Nothing that either knows is lost.
    pub(crate) fn unite(self, other: Entry) -> Entry {
        Entry {
            state: self.state.max(other.state),
            has_id: self.has_id || other.has_id,
            cost: self.cost.max(other.cost),
        }
    }

    /// Whether its generation exists, or may exist, and is or may be charged.
    pub(crate) fn is_open(self) -> bool {
        !matches!(self.state, State::Failed | State::GivenUp)
    }
}

/// Which of the entries of a request, the oldest first, counts: an open one if there is any. Of
/// several, the one whose state comes last, and of these the newest.
pub(crate) fn current(entries: impl IntoIterator<Item = Option<Entry>>) -> Option<usize> {
    let entries = entries.into_iter().enumerate();
    let rank = |(index, entry): (usize, Option<Entry>)| {
        let entry = entry?;
        let progress = entry.is_open().then_some(entry.state);
        Some((progress, index))
    };
    entries
        .filter_map(rank)
        .max()
        .map(|(_progress, index)| index)
}

/// What a run learns about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// A run starts, perhaps after another one was killed.
    Start,
    /// The request's body was not sent to its end.
    NotSent,
    /// The response names the generation.
    Accepted(Cost),
    /// The server rejected the request. `id`: the response names a generation all the same.
    Refused { id: bool, cost: Cost },
    /// The request was sent, and the response was lost or can't be understood. `id`: it still
    /// names a generation.
    Lost { id: bool, cost: Cost },
    /// The usage log does not have the request so far, or can't be read.
    NotInLog,
    /// The usage log has the request. `id`: in a row that did not fail. The cost is the highest of
    /// all its rows.
    InLog { id: bool, cost: Cost },
    /// A poll: the generation has not finished.
    Pending(Cost),
    /// A poll: there is a video.
    Video(Cost),
    /// A poll: one of the six words for a failure. `own`: the response names this generation.
    Failure { own: bool, cost: Cost },
    /// A poll: it ended without a video, and not by one of those words.
    Ended(Cost),
    /// A poll: the server does not know the generation, or refuses to say. `own`: this run sent the
    /// request, which was rejected, and the documented 404 came twice in a row, an interval apart.
    Gone { own: bool },
    /// A poll that says nothing about the generation: the network, the key, the time is up.
    Odd,
}

impl Event {
    fn names_id(self) -> bool {
        use Event::{Accepted, InLog, Lost, Refused};
        matches!(
            self,
            Accepted(_) | Refused { id: true, .. } | Lost { id: true, .. } | InLog { id: true, .. }
        )
    }

    fn cost(self) -> Cost {
        use Event::*;
        match self {
            Accepted(cost) | Pending(cost) | Video(cost) => cost,
            // There may have been a video, and a charge for it.
            Ended(cost) => cost.max(Cost::Unreadable),
            Refused { cost, .. } | Lost { cost, .. } => cost,
            InLog { cost, .. } | Failure { cost, .. } => cost,
            Start | NotSent | NotInLog | Gone { .. } | Odd => Cost::Unsaid,
        }
    }
}

/// What a run does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Send the request. The only action that can cost anything.
    Post,
    /// Look the request up in the usage log.
    LookUp,
    /// Wait for the generation.
    Poll,
    /// Download the video.
    Download,
    /// End this run. Another one can continue.
    Stop,
    /// End this run. Another one may learn no more, so a person has to decide.
    DeadEnd,
}

/// Decides what happens next in an attempt, and what its entry becomes.
///
/// The caller reads the receipt, unites it with what it knows, calls this, writes the entry, and
/// only then acts. The entry of a `Post` alone is written later: when the request's body is asked
/// for, and this has been asked once more.
///
/// A `Post` follows a `Start` alone, and only
/// - where no attempt of the request is known,
/// - where a person gave its attempt up, or
/// - where its attempt is `Failed`. It becomes `Failed` in four ways, and in each only while no
///   response has named a cost above zero, or one that can't be read:
///   1. The request's body was not sent to its end.
///   2. The server rejected the request, and named no generation.
///   3. It rejected the request and named a generation, and in the same run says twice in a row,
///      with the documented body, that there is no such generation.
///   4. A response that names this generation says `error`, `failed`, `cancelled`, `canceled`,
///      `aborted` or `rejected`, and there was never a video.
pub(crate) fn step(known: Option<Entry>, event: Event) -> (Entry, Action) {
    use {Action::*, Event::*, State::*};
    if known.is_none() && event == Start {
        return (Entry::NEW, Post);
    }
    let entry = known.unwrap_or(Entry::NEW);
    let heard = Entry {
        has_id: entry.has_id || event.names_id(),
        cost: entry.cost.max(event.cost()),
        ..entry
    };
    let to = |state| Entry { state, ..heard };
    let alive = to(entry.state.max(Waiting));
    let is_free = heard.cost <= Cost::Free;
    match (entry.state, event) {
        (Failed | GivenUp, Start) => (Entry::NEW, Post),
        (_, Start) if entry.has_id => (entry, Poll),
        (_, Start) => (entry, LookUp),
        // A person's decision stands, whatever else is heard.
        (GivenUp, _) => (heard, Stop),
        (Sending, NotSent) if is_free => (to(Failed), Stop),
        (Sending, Refused { id: false, .. }) if is_free => (to(Failed), Stop),
        (_, Accepted(_) | Pending(_)) => (alive, Poll),
        (_, Lost { id: true, .. } | Refused { id: true, .. } | InLog { id: true, .. }) => {
            (alive, Poll)
        }
        (_, Lost { .. } | Refused { .. }) => (heard, LookUp),
        (_, Video(_)) => (to(Completed), Download),
        (Waiting, Failure { own: true, .. } | Gone { own: true }) if is_free => (to(Failed), Stop),
        // Rows that failed prove nothing: one more, that was charged, may come late.
        (_, InLog { .. } | Failure { .. } | Ended(_) | Gone { .. }) => (heard, DeadEnd),
        // Nothing was learned.
        (_, NotSent | NotInLog | Odd) => (heard, Stop),
    }
}

/// Explores, breadth-first, everything that the rules can meet: a server that says anything that is
/// true, a kill between any two steps, a person who gives up, a receipt that is lost or put back
/// under a run, and two runs that take turns as if there were no lock. Each step, from reading the
/// receipt to writing it, happens at once. A response that no run has received counts as not sent.
#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::{BuildHasherDefault, Hasher};

    use super::{Action, Cost, Entry, Event, State, current, step};
    use {Action::*, Doing::*, Event::*, State::*, Truth::*};

    /// The entries of one request, the oldest first. Two are enough for one to be paid twice.
    type Receipt = [Option<Entry>; 2];

    /// The rules as the walk asks them, so that a test can break one.
    #[derive(Clone, Copy)]
    struct Rules {
        step: fn(Option<Entry>, Event) -> (Entry, Action),
        /// The first is the entry on disk, the second what the run knows of it.
        unite: fn(Entry, Entry) -> Entry,
        current: fn(Receipt) -> Option<usize>,
        /// Whether a run that knows something takes no notice of what is on disk.
        writes_over: bool,
    }

    const REAL: Rules = Rules {
        step,
        unite: Entry::unite,
        current: |receipt| current(receipt),
        writes_over: false,
    };

    impl Rules {
        fn unite_all(&self, disk: Receipt, known: Receipt) -> Receipt {
            if self.writes_over && known != [None; 2] {
                return known;
            }
            let unite = |slot: usize| match (disk[slot], known[slot]) {
                (Some(disk), Some(known)) => Some((self.unite)(disk, known)),
                (disk, known) => disk.or(known),
            };
            [unite(0), unite(1)]
        }

        /// What a run that starts now would do.
        fn start(&self, receipt: Receipt) -> (Option<usize>, Entry, Action) {
            let slot = (self.current)(receipt);
            let (entry, action) = (self.step)(slot.and_then(|slot| receipt[slot]), Start);
            (slot, entry, action)
        }
    }

    const ALL_COSTS: &[Cost] = &[Cost::Unsaid, Cost::Free, Cost::Unreadable, Cost::Charged];
    const TWO_COSTS: &[Cost] = &[Cost::Unsaid, Cost::Charged];

    /// Every event but `Start`.
    fn events(costs: &[Cost]) -> Vec<Event> {
        let mut events = vec![NotSent, NotInLog, Odd];
        events.extend([false, true].map(|own| Gone { own }));
        for &cost in costs {
            events.extend([Accepted(cost), Pending(cost), Video(cost), Ended(cost)]);
            for yes in [false, true] {
                events.extend([Lost { id: yes, cost }, Refused { id: yes, cost }]);
                events.extend([InLog { id: yes, cost }, Failure { own: yes, cost }]);
            }
        }
        events
    }

    /// What has really become of an attempt, which only the server knows.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    enum Truth {
        /// The body is not out.
        #[default]
        Unsent,
        /// The request made no generation.
        Absent,
        Alive,
        /// `Alive`, and a run has heard of a charge. From now on a response may leave it out.
        AliveHeard,
        FailedFree,
        /// What says that it failed says also that it was charged.
        FailedCharged,
        /// `FailedCharged`, and a run has heard of the charge.
        FailedHeard,
        /// It has ended, perhaps with a video.
        Made,
        /// A run has heard how it ended. What the server says of it from now on proves nothing.
        Seen,
        /// It was charged, and the server no longer knows it.
        Forgotten,
    }

    impl Truth {
        /// Whether it is, or may yet be, charged.
        fn counts(self) -> bool {
            !matches!(self, Unsent | Absent | FailedFree)
        }

        /// What it may become by itself.
        fn fates(self) -> &'static [Truth] {
            match self {
                Alive => &[FailedFree, FailedCharged, Made],
                AliveHeard => &[FailedHeard, Made],
                FailedCharged | FailedHeard | Made | Seen => &[Forgotten],
                Unsent | Absent | FailedFree | Forgotten => &[],
            }
        }

        /// What is true after a run has heard this.
        fn after(self, event: Event) -> Truth {
            let charged = event.cost() > Cost::Free;
            match (self, event) {
                (Unsent, NotSent) => Absent,
                (Made, Video(_) | Ended(_)) => Seen,
                (Alive, _) if charged => AliveHeard,
                (FailedCharged, _) if charged => FailedHeard,
                _ => self,
            }
        }
    }

    /// What a run is about to do, or waits for.
    #[derive(Clone, Copy, PartialEq, Eq, Default)]
    enum Doing {
        /// Not started, ended or killed: it knows nothing.
        #[default]
        Idle,
        /// It would send a request of which nothing is written so far.
        Connecting,
        /// The entry is on disk, and the body is not out.
        Written,
        Sent,
        LookingUp,
        Polling,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Default)]
    struct Run {
        doing: Doing,
        /// Which entry it is about.
        slot: usize,
        knows: Receipt,
        /// It sent the request, and was told that it was rejected, which is true.
        rejected: bool,
    }

    #[derive(Clone, Copy, Default)]
    struct World {
        disk: Receipt,
        truths: [Truth; 2],
        /// In the order of their keys: which run is which makes no difference.
        runs: [Run; 2],
    }

    /// Whether a run may hear this from a server that does not lie.
    fn is_true(event: Event, truth: Truth, run: &Run) -> bool {
        let charged = event.cost() > Cost::Free;
        match (run.doing, event) {
            (Written, NotSent) | (LookingUp, NotInLog) => true,
            // Another server may respond to a poll, and say anything but the name of this generation.
            (Polling, Odd | Gone { own: false } | Failure { own: false, .. }) => true,
            (Polling, Gone { own: true }) => run.rejected,
            _ if charged && !truth.counts() => false,
            // That something was rejected which exists is said only together with a charge.
            (Sent, Refused { id: false, .. }) => truth == Absent || charged,
            // An error may name a generation that never was.
            (Sent, Lost { id: false, .. } | Refused { id: true, .. }) => true,
            (Sent, Lost { id: true, .. } | Accepted(_)) => truth != Absent,
            // The log is late, and may have several rows. Not every row names what exists.
            (LookingUp, InLog { id, .. }) => truth != Unsent && (truth != Absent || !id),
            (Polling, Pending(_)) => matches!(truth, Alive | AliveHeard),
            (Polling, Video(_) | Ended(_)) => matches!(truth, Made | Seen),
            (Polling, Failure { own: true, .. }) => match truth {
                FailedCharged => charged,
                _ => matches!(truth, FailedFree | FailedHeard | Seen),
            },
            _ => false,
        }
    }

    /// A number that no other world has, but for one that differs by the order of its runs.
    /// Also says whether they are in the wrong order.
    fn key(world: &World) -> (u64, bool) {
        let truths = (world.truths[0] as u64) << 4 | world.truths[1] as u64;
        let (a, b) = (run_key(&world.runs[0]), run_key(&world.runs[1]));
        let runs = if a > b { b << 17 | a } else { a << 17 | b };
        (truths << 46 | receipt_key(world.disk) << 34 | runs, a > b)
    }

    fn run_key(run: &Run) -> u64 {
        let doing = (run.doing as u64) << 2 | (run.slot as u64) << 1 | run.rejected as u64;
        doing << 12 | receipt_key(run.knows)
    }

    fn receipt_key(receipt: Receipt) -> u64 {
        entry_key(receipt[0]) << 6 | entry_key(receipt[1])
    }

    fn entry_key(entry: Option<Entry>) -> u64 {
        match entry {
            Some(e) => 1 + ((e.state as u64) << 3 | (e.has_id as u64) << 2 | e.cost as u64),
            None => 0,
        }
    }

    /// Hashes a key, faster than the standard library's hasher.
    #[derive(Default)]
    struct Multiply(u64);

    impl Hasher for Multiply {
        fn write(&mut self, _: &[u8]) {
            unreachable!("a key is a u64");
        }
        fn write_u64(&mut self, key: u64) {
            self.0 = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
        }
        fn finish(&self) -> u64 {
            self.0
        }
    }

    /// The receipt that a run finds when it reads.
    #[derive(Debug, Clone, Copy)]
    enum Found {
        AsItIs,
        PutBack,
        Gone,
    }

    /// What a run found, and what it knows after it has united that with what it knew.
    type Reading = (Found, Receipt);

    /// How one world follows from another.
    // The fields are read by `Debug`, which shows a trace.
    #[allow(dead_code)]
    #[derive(Debug, Clone, Copy)]
    enum What {
        Begins,
        ServerHas(Truth),
        PersonGivesUp,
        IsKilled,
        Hears(Event, Found),
        MayWrite(Found),
        Sends(Truth),
    }

    /// A world that was reached, and how.
    struct Visit {
        world: World,
        from: usize,
        what: What,
        /// The place of the run that did it.
        run: Option<usize>,
        /// The runs changed places on the way.
        swapped: bool,
    }

    struct Walk {
        rules: Rules,
        runs: usize,
        events: Vec<Event>,
        visits: Vec<Visit>,
        seen: HashSet<u64, BuildHasherDefault<Multiply>>,
        /// The visit that is being continued.
        at: usize,
        transitions: usize,
        /// The first fault, and the trace that leads to it.
        fault: Option<String>,
    }

    impl Walk {
        /// Walks until all is seen or there is a fault. The first fault has the shortest trace.
        fn explore(rules: Rules, runs: usize, costs: &[Cost]) -> Walk {
            let mut walk = Walk {
                rules,
                runs,
                events: events(costs),
                visits: vec![],
                seen: HashSet::default(),
                at: 0,
                transitions: 0,
                fault: None,
            };
            walk.go(&World::default(), World::default(), What::Begins, None);
            while walk.at < walk.visits.len() && walk.fault.is_none() {
                let world = walk.visits[walk.at].world;
                walk.check_way_on(&world);
                walk.others_act(&world);
                walk.run_acts(&world, 0);
                walk.run_acts(&world, 1);
                walk.at += 1;
            }
            walk
        }

        /// `from` is the world as it was, with its entries in the slots that they have in `to`.
        fn go(&mut self, from: &World, mut to: World, what: What, run: Option<usize>) {
            self.transitions += 1;
            if let Some(fault) = wrong(from, &to) {
                self.report(fault, what, run);
            }
            let (key, swapped) = key(&to);
            if self.seen.insert(key) {
                if swapped {
                    to.runs = [to.runs[1], to.runs[0]];
                }
                self.visits.push(Visit {
                    world: to,
                    from: self.at,
                    what,
                    run,
                    swapped,
                });
            }
        }

        fn report(&mut self, fault: &str, what: What, run: Option<usize>) {
            let mut path = vec![(what, run, false)];
            let mut at = self.at;
            while at > 0 {
                let visit = &self.visits[at];
                path.push((visit.what, visit.run, visit.swapped));
                at = visit.from;
            }
            let mut swapped = false;
            let mut trace = format!("{fault}:");
            for (what, run, swaps) in path.into_iter().rev() {
                let run = run.map_or("", |run| if (run == 1) == swapped { "A " } else { "B " });
                trace += &format!(" {run}{what:?};");
                swapped ^= swaps;
            }
            self.fault.get_or_insert(trace);
        }

        /// Each state has a way on, and what is there to be had is asked for.
        fn check_way_on(&mut self, world: &World) {
            let is_open = |entry: &&Entry| entry.state != Failed && entry.state != GivenUp;
            let open = world.disk.iter().flatten().filter(is_open);
            let right = match open.map(|entry| entry.has_id).max() {
                Some(true) => Poll,
                Some(false) => LookUp,
                None => Post,
            };
            let (_, _, action) = self.rules.start(world.disk);
            if action != right {
                let fault = format!("a start leads to {action:?}, not to {right:?}");
                self.report(&fault, What::Hears(Start, Found::AsItIs), None);
            }
        }

        /// The server continues by itself, and a person may give an attempt up.
        fn others_act(&mut self, world: &World) {
            for slot in [0, 1] {
                for &truth in world.truths[slot].fates() {
                    let mut to = *world;
                    to.truths[slot] = truth;
                    self.go(world, to, What::ServerHas(truth), None);
                }
                if world.disk[slot].is_some_and(|entry| entry.state != GivenUp) {
                    let mut to = *world;
                    to.disk[slot] = world.disk[slot].map(|entry| in_state(GivenUp, entry));
                    self.go(world, to, What::PersonGivesUp, None);
                }
            }
        }

        fn run_acts(&mut self, world: &World, me: usize) {
            let run = world.runs[me];
            if run.doing == Idle {
                // A run that is idle is the first of the two.
                if me == 0 && (self.runs == 2 || world.runs[1].doing == Idle) {
                    self.hear(world, me, (Found::AsItIs, world.disk), Start);
                }
                return;
            }
            let mut to = *world;
            to.runs[me] = Run::default();
            self.go(world, to, What::IsKilled, Some(me));
            if run.doing == Written {
                self.send(world, me);
            }
            for reading in self.readings(world, me).into_iter().flatten() {
                if run.doing == Connecting {
                    self.write(world, me, reading);
                    continue;
                }
                for index in 0..self.events.len() {
                    let event = self.events[index];
                    if is_true(event, world.truths[run.slot], &run) {
                        self.hear(world, me, reading, event);
                    }
                }
            }
        }

        /// What a run may read. The receipt is put back to an earlier state, or lost, only where
        /// the run knows all that is in it, and is walked on only where the run then differs.
        fn readings(&self, world: &World, me: usize) -> [Option<Reading>; 3] {
            let knows = world.runs[me].knows;
            let as_it_is = self.rules.unite_all(world.disk, knows);
            let mut readings = [Some((Found::AsItIs, as_it_is)), None, None];
            if REAL.unite_all(world.disk, knows) == knows {
                let is_final = |entry: &Entry| entry.state == GivenUp;
                let earlier = |entry| Some(entry).filter(is_final).unwrap_or(Entry::NEW);
                let earlier = [world.disk[0].map(earlier), world.disk[1].map(earlier)];
                let put_back = self.rules.unite_all(earlier, knows);
                let lost = self.rules.unite_all([None; 2], knows);
                readings[1] = (put_back != as_it_is).then_some((Found::PutBack, put_back));
                readings[2] = (lost != as_it_is).then_some((Found::Gone, lost));
            }
            readings
        }

        /// A run has read and united. It asks the rules, writes, and continues as it is told.
        fn hear(&mut self, world: &World, me: usize, reading: Reading, event: Event) {
            let (found, mut receipt) = reading;
            let what = What::Hears(event, found);
            let mut run = world.runs[me];
            let (slot, entry, action) = if event == Start {
                self.rules.start(receipt)
            } else {
                let (entry, action) = (self.rules.step)(receipt[run.slot], event);
                (Some(run.slot), entry, action)
            };
            run.doing = match action {
                Post => Connecting,
                LookUp => LookingUp,
                Poll => Polling,
                Download | Stop | DeadEnd => Idle,
            };
            let mut to = *world;
            if action != Post {
                run.slot = slot.unwrap_or(0);
                receipt[run.slot] = Some(entry);
                to.disk = receipt;
                let truth = &mut to.truths[run.slot];
                *truth = truth.after(event);
                run.rejected |= *truth == Absent && matches!(event, Refused { .. });
            } else if event != Start {
                self.report("a request is sent, and no run started", what, Some(me));
            }
            run.knows = receipt;
            to.runs[me] = if run.doing == Idle {
                Run::default()
            } else {
                run
            };
            self.go(world, to, what, Some(me));
        }

        /// The body is asked for: a run has read and united once more. It asks, and writes.
        fn write(&mut self, world: &World, me: usize, reading: Reading) {
            let (found, mut receipt) = reading;
            let (_, entry, action) = self.rules.start(receipt);
            let (mut from, mut to) = (*world, *world);
            to.runs[me] = Run::default();
            if action == Post {
                // Where there is no room, a closed entry that no other run knows is left out.
                let other = &mut from.runs[1 - me];
                let is_closed = |slot: usize| receipt[slot].is_some_and(|entry| !entry.is_open());
                let may_go = |slot: usize| is_closed(slot) && other.knows[slot].is_none();
                let slot = match receipt {
                    [None, _] => 0,
                    [_, None] => 1,
                    _ if may_go(0) => {
                        receipt[0] = receipt[1];
                        from.disk[0] = world.disk[1];
                        from.truths[0] = world.truths[1];
                        other.knows = [other.knows[1], None];
                        other.slot = 0;
                        1
                    }
                    _ if may_go(1) => 1,
                    _ => return,
                };
                receipt[slot] = Some(entry);
                from.disk[slot] = None;
                from.truths[slot] = Unsent;
                to = from;
                to.disk = receipt;
                let run = &mut to.runs[me];
                (run.doing, run.slot, run.knows) = (Written, slot, receipt);
            }
            self.go(&from, to, What::MayWrite(found), Some(me));
        }

        /// The run looks once more: only an attempt that is on disk, and alone open, is sent.
        fn send(&mut self, world: &World, me: usize) {
            let slot = world.runs[me].slot;
            let other = 1 - slot;
            let is_open = |slot: usize| world.disk[slot].is_some_and(Entry::is_open);
            if !is_open(slot) || is_open(other) {
                return;
            }
            let is_given_up = world.disk[other].is_some_and(|entry| entry.state == GivenUp);
            for truth in [Absent, Alive] {
                if world.truths[other].counts() && !is_given_up {
                    self.report("paid twice", What::Sends(truth), Some(me));
                }
                let mut to = *world;
                to.truths[slot] = truth;
                to.runs[me].doing = Sent;
                self.go(world, to, What::Sends(truth), Some(me));
            }
        }
    }

    /// What must not be, in a world or on the way to it.
    fn wrong(from: &World, to: &World) -> Option<&'static str> {
        for slot in [0, 1] {
            let Some(entry) = to.disk[slot] else {
                if from.disk[slot].is_some() {
                    return Some("an entry is lost");
                }
                continue;
            };
            let before = from.disk[slot].unwrap_or(Entry::NEW);
            let fault = match (before.state, entry.state) {
                _ if before.has_id && !entry.has_id => "an id is forgotten",
                _ if before.cost > entry.cost => "a cost is forgotten",
                (_, Sending) if entry.has_id => "what has an id counts as unknown",
                (_, Waiting | Completed) if !entry.has_id => "an id is not kept",
                (_, Failed) if to.truths[slot].counts() => "what exists or was charged has failed",
                (Failed, Failed) => continue,
                (_, Failed) if entry.cost > Cost::Free => "what has a cost has failed",
                (GivenUp, state) if state != GivenUp => "a person's decision is undone",
                _ => continue,
            };
            return Some(fault);
        }
        None
    }

    fn in_state(state: State, entry: Entry) -> Entry {
        Entry { state, ..entry }
    }

    /// Rules of which one is broken: the name of the break, what it concerns, and what it says.
    macro_rules! broken_steps {
        ($known:ident, $event:ident;
            $($name:literal: $case:pat $(if $guard:expr)? => $result:expr;)*) => {
            &[$(($name, |$known, $event| match ($known.map(|entry| entry.state), $event) {
                $case $(if $guard)? => $result,
                _ => step($known, $event),
            })),*]
        };
    }

    type Step = fn(Option<Entry>, Event) -> (Entry, Action);

    fn fail(known: Option<Entry>, event: Event) -> (Entry, Action) {
        (in_state(Failed, step(known, event).0), Stop)
    }

    /// As if the attempt were in another state.
    fn step_as(state: State, known: Option<Entry>, event: Event) -> (Entry, Action) {
        step(known.map(|entry| in_state(state, entry)), event)
    }

    /// The cost that the event names is not kept.
    fn forget_cost(known: Option<Entry>, event: Event) -> (Entry, Action) {
        let cost = known.map_or(Cost::Unsaid, |known| known.cost);
        let (entry, action) = step(known, event);
        (Entry { cost, ..entry }, action)
    }

    /// The cost that was named before is kept, and does not count.
    fn ignore_cost(known: Option<Entry>, event: Event) -> (Entry, Action) {
        let cost = Cost::Unsaid;
        let (entry, action) = step(known.map(|known| Entry { cost, ..known }), event);
        (in_state(entry.state, step(known, event).0), action)
    }

    const BROKEN_STEPS: &[(&str, Step)] = broken_steps! { known, event;
        "what may have been sent is sent again": (Some(Sending), Start) => step(None, Start);
        "what waits is sent again": (Some(Waiting), Start) => step(None, Start);
        "what has a video is sent again": (Some(Completed), Start) => step(None, Start);
        "what failed is sent again at once": (Some(Failed), _) => step(None, Start);
        "what failed is never sent again": (Some(Failed), _) => step_as(Waiting, known, event);
        "what was given up is never sent again":
            (Some(GivenUp), Start) => step_as(Waiting, known, event);
        "what has an id is looked up": (Some(Waiting), Start) => (step(known, event).0, LookUp);
        "what has no id is polled": (Some(Sending), Start) => (step(known, event).0, Poll);
        "a person's decision does not stand":
            (Some(GivenUp), Accepted(_)) => step_as(Sending, known, event);
        "a rejection is final, although it names a cost":
            (_, Refused { id: false, .. }) => fail(known, event);
        "a rejection is final, although it names an id":
            (_, Refused { cost, .. }) => step(known, Refused { id: false, cost });
        "a rejection is final, although an id is known":
            (Some(Waiting), Refused { id: false, .. }) => fail(known, event);
        "a lost response is a rejection":
            (_, Lost { id, cost }) => step(known, Refused { id, cost });
        "what is not in the log has failed": (_, NotInLog) => fail(known, event);
        "a row that failed at no cost is final":
            (_, InLog { id: false, cost }) if cost <= Cost::Free => fail(known, event);
        "a poll that says nothing is final": (_, Odd) => fail(known, event);
        "a failure is final, although it names a cost":
            (_, Failure { own: true, .. }) => fail(known, event);
        "a failure is final, although a cost was named":
            (_, Failure { .. }) => ignore_cost(known, event);
        "a failure is final, whosever it is":
            (_, Failure { cost, .. }) => step(known, Failure { own: true, cost });
        "a failure is final, although there was a video":
            (Some(Completed), Failure { .. }) => step_as(Waiting, known, event);
        "an end without a video is a failure":
            (_, Ended(cost)) => step(known, Failure { own: true, cost });
        "an end without a video is free": (_, Ended(_)) => forget_cost(known, event);
        "any 404 is final": (_, Gone { .. }) => step(known, Gone { own: true });
        "a 404 is final, although a cost was named": (_, Gone { .. }) => ignore_cost(known, event);
        "a cost that can't be read counts as not said":
            _ if event.cost() == Cost::Unreadable => forget_cost(known, event);
        "the cost in the response to the request is not kept":
            (_, Accepted(_) | Lost { .. } | Refused { .. }) => forget_cost(known, event);
        "the cost in the log is not kept": (_, InLog { .. }) => forget_cost(known, event);
        "the cost of what is pending is not kept": (_, Pending(_)) => forget_cost(known, event);
        "a late id is not kept":
            (_, Accepted(_)) => (Entry { has_id: false, ..step(known, event).0 }, Poll);
        "an id does not change the state":
            (Some(state), InLog { id: true, .. }) => (in_state(state, step(known, event).0), Poll);
        "a video does not change the state":
            (Some(state), Video(_)) => (in_state(state, step(known, event).0), Download);
        "what has a video can wait again":
            (Some(Completed), Accepted(_) | Pending(_) | InLog { .. }) => step_as(Waiting, known, event);
    };

    type Unite = fn(Entry, Entry) -> Entry;

    #[rustfmt::skip]
    const BROKEN_UNITES: &[(&str, Unite)] = &[
        ("what is on disk wins", |disk, _| disk),
        ("what the run knows wins", |_, known| known),
        ("the state on disk wins", |disk, known| in_state(disk.state, disk.unite(known))),
        ("the earlier state wins", |disk, known| {
            in_state(disk.state.min(known.state), disk.unite(known))
        }),
        ("the id on disk wins", |disk, known| Entry { has_id: disk.has_id, ..disk.unite(known) }),
        ("the cost on disk wins", |disk, known| Entry { cost: disk.cost, ..disk.unite(known) }),
        ("the cost the run knows wins", |disk, known| {
            Entry { cost: known.cost, ..disk.unite(known) }
        }),
    ];

    /// `current`, as if what is in one state were in another.
    fn current_as(state: State, other: State, receipt: Receipt) -> Option<usize> {
        let state_of = |entry: Entry| {
            if entry.state == state {
                other
            } else {
                entry.state
            }
        };
        current(receipt.map(|entry| entry.map(|entry| in_state(state_of(entry), entry))))
    }

    type Current = fn(Receipt) -> Option<usize>;

    #[rustfmt::skip]
    const BROKEN_CURRENTS: &[(&str, Current)] = &[
        ("the oldest counts", |receipt| current([receipt[0]])),
        ("the newest counts", |receipt| current([None, receipt[1]]).or(current(receipt))),
        ("the newest open one counts", |receipt| current_as(Waiting, Sending, receipt)),
        ("what was given up is open", |receipt| current_as(GivenUp, Waiting, receipt)),
        ("what failed is open", |receipt| current_as(Failed, Waiting, receipt)),
        ("what waits is closed", |receipt| current_as(Waiting, Failed, receipt)),
    ];

    #[test]
    fn each_request_that_was_not_proven_free_is_paid_once() {
        for (runs, least) in [(1, 17_000), (2, 680_000)] {
            let walk = Walk::explore(REAL, runs, ALL_COSTS);
            let (states, transitions) = (walk.visits.len(), walk.transitions);
            println!("runs at once: {runs}, states: {states}, transitions: {transitions}");
            assert_eq!(walk.fault, None);
            assert!(states > least, "the walk has shrunk to {states} states");
        }
    }

    #[test]
    fn each_rule_is_needed() {
        let find_fault = |name: &str, rules| {
            let fault = Walk::explore(rules, 1, ALL_COSTS).fault;
            let fault = fault.or_else(|| Walk::explore(rules, 2, TWO_COSTS).fault);
            println!("{name}\n    {}", fault.expect(name));
        };
        for &(name, step) in BROKEN_STEPS {
            find_fault(name, Rules { step, ..REAL });
        }
        for &(name, unite) in BROKEN_UNITES {
            find_fault(name, Rules { unite, ..REAL });
        }
        for &(name, current) in BROKEN_CURRENTS {
            find_fault(name, Rules { current, ..REAL });
        }
        let writes_over = true;
        find_fault(
            "a run writes over the receipt",
            Rules {
                writes_over,
                ..REAL
            },
        );
    }

    /// Nothing, and every entry, even those that no walk meets.
    fn all_entries() -> Vec<Option<Entry>> {
        let mut entries = vec![None];
        for state in [Sending, Failed, Waiting, Completed, GivenUp] {
            for &cost in ALL_COSTS {
                for has_id in [false, true] {
                    let entry = Entry {
                        state,
                        has_id,
                        cost,
                    };
                    entries.push(Some(entry));
                }
            }
        }
        entries
    }

    #[test]
    fn a_request_is_sent_again_only_as_the_docs_of_step_say() {
        for known in all_entries() {
            let before = known.unwrap_or(Entry::NEW);
            let may_post = known.is_none() || matches!(before.state, Failed | GivenUp);
            assert_eq!(step(known, Start).1 == Post, may_post, "{known:?}");
            for event in events(ALL_COSTS) {
                let case = format!("{known:?}, {event:?}");
                let (entry, action) = step(known, event);
                assert_ne!(action, Post, "{case}");
                assert_eq!(entry.has_id, before.has_id || event.names_id(), "{case}");
                assert_eq!(entry.cost, before.cost.max(event.cost()), "{case}");
                // The four ways to `Failed`.
                if entry.state == Failed && before.state != Failed {
                    let is_listed = match event {
                        NotSent | Refused { id: false, .. } => before.state == Sending,
                        Gone { own: true } | Failure { own: true, .. } => before.state == Waiting,
                        _ => false,
                    };
                    assert!(is_listed, "{case}");
                    assert!(entry.cost <= Cost::Free, "{case}");
                }
            }
        }
    }

    #[test]
    fn an_open_attempt_counts_of_several_the_one_whose_state_comes_last_and_then_the_newest() {
        let counts = |states: &[State]| {
            let entry = |&state: &State| Some(in_state(state, Entry::NEW));
            current(states.iter().map(entry))
        };
        assert_eq!(counts(&[]), None);
        assert_eq!(counts(&[Failed, GivenUp, Failed]), Some(2));
        assert_eq!(counts(&[GivenUp, Sending, GivenUp, Failed]), Some(1));
        assert_eq!(counts(&[Completed, Waiting, Sending]), Some(0));
        assert_eq!(counts(&[Sending, Waiting, Waiting]), Some(2));
    }
}
