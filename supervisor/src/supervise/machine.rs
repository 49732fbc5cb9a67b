//! Update and child as one pure machine: `take` an event, get the effects.
//!
//! Each half is a pure function. What one has to tell the other goes through a queue, so an event
//! is carried through before the next begins. The journal comes first: when an event changes what
//! must survive a crash, the machine asks for the new state to be written and does nothing else
//! until [`Event::Journaled`] says how that went. Where it failed, the update stands still at what
//! is on the disk, and is tried again later; the child is looked after all the same.
//!
//! The loop (`supervise::Supervisor`) and the property test drive this same type.

use std::{collections::VecDeque, time::Duration};

use shared::status::Health;

use crate::{
    child::{
        state::{ChildEffect, ChildEvent, ChildNow, ChildPolicy, ChildState, Stage},
        step::step as step_child,
    },
    update::{
        state::{
            Note, Step, UpdateEffect, UpdateEvent, UpdateNow, UpdatePolicy, UpdateState, Urgency,
        },
        step::step as step_update,
    },
};

/// Between attempts to write a journal that can't be written.
const STUCK_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    Update(UpdateEvent),
    Child(ChildEvent),
    /// The time of [`Machine::due`] has come.
    Tick,
    /// The child asks for more time for whatever it is being waited for.
    Extend(Duration),
    /// The answer to [`Effect::Journal`]: written, or why not.
    Journaled(Result<(), String>),
}

impl From<UpdateEvent> for Event {
    fn from(event: UpdateEvent) -> Self {
        Self::Update(event)
    }
}

impl From<ChildEvent> for Event {
    fn from(event: ChildEvent) -> Self {
        Self::Child(event)
    }
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Write this to the journal; answer with [`Event::Journaled`] before anything else.
    Journal(Box<UpdateState>),
    /// Carry out a step of the update; its answer is an event of the update.
    Start(Step),
    /// Write to the history and tell whoever wants to know.
    Record(Note),
    /// Start a child of this release; answer with `Spawned` or `SpawnFailed`.
    Spawn(String),
    /// Ask a process to end.
    Terminate(u32),
    KillGroup(u32),
}

/// What the world looks like at the moment of an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct World {
    /// Monotonic time since this process began.
    pub at: Duration,
    /// The jitter of a back-off, 0..=1000.
    pub draw: u32,
    /// How long until the maintenance window opens; zero inside it.
    pub window_in: Duration,
    /// Why a restart of the child would hurt now.
    pub unsafe_because: Option<String>,
    /// What the child says of its health.
    pub health: Option<Health>,
    /// Whether the child has said anything over sd_notify.
    pub speaks: bool,
}

/// The update and the child.
#[derive(Debug)]
pub struct Machine {
    update: UpdateState,
    child: ChildState,
    update_policy: UpdatePolicy,
    child_policy: ChildPolicy,
    queue: VecDeque<Event>,
    /// A state on its way to the journal, and what is to be done once it is there.
    writing: Option<(UpdateState, Vec<UpdateEffect>)>,
    /// Why the journal could not be written.
    stuck: Option<String>,
}

impl Machine {
    /// Makes a machine that goes on where the journal stopped.
    pub fn new(update: UpdateState, policy: UpdatePolicy, child_policy: ChildPolicy) -> Self {
        Self {
            update,
            child: ChildState::default(),
            update_policy: policy,
            child_policy,
            queue: VecDeque::new(),
            writing: None,
            stuck: None,
        }
    }

    pub fn set_policy(&mut self, policy: UpdatePolicy, child_policy: ChildPolicy) {
        self.update_policy = policy;
        self.child_policy = child_policy;
    }

    pub const fn update(&self) -> &UpdateState {
        &self.update
    }

    pub const fn child(&self) -> &ChildState {
        &self.child
    }

    /// Returns what keeps us from being up to date.
    pub fn problem(&self) -> Option<&str> {
        let UpdateState { hold, problem, .. } = &self.update;
        let problems = [&self.stuck, hold, problem];
        problems.into_iter().find_map(Option::as_deref)
    }

    /// Returns when [`Event::Tick`] is wanted.
    pub fn due(&self, at: Duration) -> Option<Duration> {
        let due = [self.update.due, self.child.due(at)];
        due.into_iter().flatten().min()
    }

    /// Returns whether time alone changes something about the update now.
    pub fn update_is_due(&self, at: Duration) -> bool {
        self.update.due.is_some_and(|due| due <= at)
    }

    /// Carries out an event and all that follows from it.
    pub fn take(&mut self, event: Event, world: &World) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Journaled(written) => self.journaled(written, world, &mut effects),
            event => self.queue.push_back(event),
        }
        while self.writing.is_none()
            && let Some(event) = self.queue.pop_front()
        {
            self.one(event, world, &mut effects);
        }
        effects
    }

    fn one(&mut self, event: Event, world: &World, effects: &mut Vec<Effect>) {
        match event {
            Event::Update(event @ UpdateEvent::Ask { .. }) if self.stuck.is_some() => {
                self.queue.push_front(event.into());
                self.resume(world, effects);
            }
            Event::Update(event) => self.step_update(event, world, effects),
            Event::Child(event) => self.step_child(event, world, effects),
            Event::Extend(by) => {
                self.step_child(ChildEvent::Extend(by), world, effects);
                self.queue.push_front(UpdateEvent::Extend(by).into());
            }
            Event::Tick => {
                if self.child.due(world.at).is_some_and(|due| due <= world.at)
                    || matches!(self.child.stage, Stage::Sweeping { .. })
                {
                    self.step_child(ChildEvent::Tick, world, effects);
                }
                if self.update_is_due(world.at) {
                    if self.stuck.is_some() {
                        self.resume(world, effects);
                    } else {
                        self.step_update(UpdateEvent::Tick, world, effects);
                    }
                }
            }
            Event::Journaled(_) => {}
        }
    }

    /// What could not be journaled was not done either: begins again where it stands, once it can be.
    fn resume(&mut self, world: &World, effects: &mut Vec<Effect>) {
        let (state, wanted) = self.stepped(UpdateEvent::Started, world);
        self.write(state, wanted, effects);
    }

    fn step_update(&mut self, event: UpdateEvent, world: &World, effects: &mut Vec<Effect>) {
        let (state, wanted) = self.stepped(event, world);
        if state.persists_as(&self.update) {
            self.update = state;
            self.carry_out(wanted, world, effects);
        } else {
            self.write(state, wanted, effects);
        }
    }

    fn stepped(&self, event: UpdateEvent, world: &World) -> (UpdateState, Vec<UpdateEffect>) {
        let now = UpdateNow {
            at: world.at,
            window_in: world.window_in,
            unsafe_because: world.unsafe_because.clone(),
            health: world.health,
            up: self.child.up().map(str::to_owned),
            failing: self.child.failing().map(str::to_owned),
            speaks: world.speaks,
        };
        step_update(self.update.clone(), event, &now, &self.update_policy)
    }

    fn write(&mut self, state: UpdateState, wanted: Vec<UpdateEffect>, effects: &mut Vec<Effect>) {
        effects.push(Effect::Journal(Box::new(state.clone())));
        self.writing = Some((state, wanted));
    }

    fn journaled(&mut self, written: Result<(), String>, world: &World, effects: &mut Vec<Effect>) {
        let Some((state, wanted)) = self.writing.take() else {
            return;
        };
        match written {
            Ok(()) => {
                self.stuck = None;
                self.update = state;
                self.carry_out(wanted, world, effects);
            }
            Err(problem) => {
                self.stuck = Some(problem);
                let asked = |event: &Event| matches!(event, Event::Update(UpdateEvent::Ask { .. }));
                self.queue.retain(|event| !asked(event));
                self.update.due = Some(world.at + STUCK_RETRY);
            }
        }
    }

    fn carry_out(&mut self, wanted: Vec<UpdateEffect>, world: &World, effects: &mut Vec<Effect>) {
        for effect in wanted {
            match effect {
                UpdateEffect::Start(step) => effects.push(Effect::Start(step)),
                UpdateEffect::Record(note) => effects.push(Effect::Record(note)),
                UpdateEffect::Run(release) => {
                    self.step_child(ChildEvent::Want(release), world, effects);
                }
            }
        }
    }

    /// What the child's half has to tell the update waits in the queue, so this never comes back
    /// to itself.
    fn step_child(&mut self, event: ChildEvent, world: &World, effects: &mut Vec<Effect>) {
        let now = ChildNow {
            at: world.at,
            draw: world.draw,
        };
        let (state, wanted) = step_child(self.child.clone(), event, &now, &self.child_policy);
        self.child = state;
        for effect in wanted {
            match effect {
                ChildEffect::Spawn(release) => effects.push(Effect::Spawn(release)),
                ChildEffect::Terminate(pid) => effects.push(Effect::Terminate(pid)),
                ChildEffect::KillGroup(group) => effects.push(Effect::KillGroup(group)),
                ChildEffect::Started(release) => self.tell(UpdateEvent::ChildStarted(release)),
                // A poll finds out that it is not there.
                ChildEffect::Lost => self.tell(UpdateEvent::ask(Urgency::Routine)),
                ChildEffect::Ready(release) => self.tell(UpdateEvent::ChildReady(release)),
                ChildEffect::Failed { release, how } => {
                    self.tell(UpdateEvent::ChildFailed { release, how });
                }
            }
        }
    }

    fn tell(&mut self, event: UpdateEvent) {
        self.queue.push_back(event.into());
    }
}
