//! The attempts to get a connection: starting, stopping, dialling, pausing between errors. Pure.
//! RFC 4271 §8.2.2 (Idle, Connect, Active), §8.1.1 (damping of oscillation).

use std::time::{Duration, Instant};

use causeway_bgp_wire::{self as wire, Cease, Family, Notification, RouteRefresh};

use super::connection::{Cause, Connection};
use super::fsm::{Action, Event, State, Transition, transition};
use super::io::{Command, ConnectionId, SessionOutput};
use super::session::Session;
use super::timers;

/// The attempts to get a connection: Idle, Connect or Active.
#[derive(Debug)]
pub(super) struct Attempts {
    pub state: State,
    pub dialing: Option<ConnectionId>,
    pub connect_retry: Option<Instant>,
    pub idle_hold: Option<Instant>,
}

impl Session {
    pub(super) fn command(&mut self, now: Instant, command: Command) {
        match command {
            Command::Start => {
                (self.stopped, self.held, self.failures) = (false, false, 0);
                self.attempts.idle_hold = None;
                self.begin(now, Event::Start);
            }
            Command::Stop(notification) => {
                self.stopped = true;
                self.stop(now, Cause::command("admin", notification));
                self.attempts.idle_hold = None;
            }
            Command::Reset { notification, idle_for } => self.reset(now, notification, idle_for),
            Command::Configure(config) => {
                let notification = Notification::cease(Cease::OtherConfigurationChange);
                let idle_hold = self.attempts.idle_hold;
                self.stop(now, Cause::command("config", notification));
                self.config = config;
                (self.bare, self.failures) = (false, 0);
                match idle_hold {
                    Some(_) => self.attempts.idle_hold = idle_hold,
                    None => self.resume(now),
                }
            }
            Command::Marks(marks) => self.marks = marks,
            Command::LinkDown(device) => {
                let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
                for id in ids {
                    self.run(now, id, Event::TcpConnectionFails, Cause::link_down(&device));
                }
            }
            Command::RequestRefresh(family) => self.request_refresh(family),
        }
    }

    pub(super) fn reset(&mut self, now: Instant, notification: Notification, idle_for: Option<Duration>) {
        let maximum_prefixes = Notification::cease(Cease::MaximumPrefixes);
        let label = if notification.code != maximum_prefixes.code {
            "notification-sent"
        } else if notification.subcode == maximum_prefixes.subcode {
            "max-prefixes"
        } else {
            "admin"
        };
        self.stop(now, Cause::command(label, notification));
        self.attempts.idle_hold = idle_for.and_then(|pause| now.checked_add(pause));
        self.held = idle_for.is_some() && self.attempts.idle_hold.is_none();
        if idle_for.is_none() {
            self.resume(now);
        }
    }

    /// Back from Idle, unless something keeps the peer there: the peer may connect at once, we try after a pause.
    fn resume(&mut self, now: Instant) {
        if self.stopped || self.held || self.blocked().is_some() {
            return;
        }
        let Transition { next, .. } = transition(self.attempts.state, Event::StartPassive);
        self.attempts.state = next;
        let pause = self.pause();
        self.wait(now, Some(pause));
        self.show("started again");
    }

    pub(super) fn request_refresh(&mut self, family: Family) {
        let agreed = |c: &&Connection| {
            let negotiated = c.negotiated.as_ref();
            c.state == State::Established
                && negotiated.is_some_and(|n| n.route_refresh && n.families.contains(family))
        };
        if let Some(connection) = self.connections.iter().find(agreed).map(|c| c.id) {
            let mut octets = Vec::new();
            wire::encode_route_refresh(&RouteRefresh::request(family), &mut octets);
            self.outputs.push_back(SessionOutput::Send { connection, octets });
        }
    }

    /// Leaves Idle, unless something keeps the peer there.
    pub(super) fn begin(&mut self, now: Instant, event: Event) {
        if self.stopped || self.held || self.blocked().is_some() || self.attempts.state != State::Idle {
            return;
        }
        let event = if self.config.passive { Event::StartPassive } else { event };
        self.attempt(now, event, "started");
    }

    /// Ends everything and goes to Idle.
    pub(super) fn stop(&mut self, now: Instant, cause: Cause) {
        let ids: Vec<ConnectionId> = self.connections.iter().map(|c| c.id).collect();
        self.attempt(now, Event::Stop, &cause.reason);
        for id in ids {
            self.run(now, id, Event::Stop, cause.clone());
        }
    }

    /// Runs the table for the attempts to get a connection.
    pub(super) fn attempt(&mut self, now: Instant, event: Event, why: &str) {
        let Transition { action, next } = transition(self.attempts.state, event);
        self.attempts.state = next;
        match action {
            Action::Dial => {
                self.give_up_dialing();
                let id = self.new_id();
                self.attempts.dialing = Some(id);
                self.attempts.connect_retry = Some(now + self.retry_time());
                self.outputs.push_back(SessionOutput::Connect(id));
            }
            Action::Wait => self.wait(now, None),
            Action::End(_) => {
                self.give_up_dialing();
                self.attempts.connect_retry = None;
            }
            _ => {}
        }
        self.show(why);
    }

    /// In Active: try again after `pause`, or after the connect retry time; a passive peer only waits.
    pub(super) fn wait(&mut self, now: Instant, pause: Option<Duration>) {
        let pause = match pause {
            Some(pause) => timers::jittered(pause, &mut self.rng),
            None => self.retry_time(),
        };
        self.attempts.connect_retry = (!self.config.passive).then(|| now + pause);
    }

    pub(super) fn retry_time(&mut self) -> Duration {
        timers::connect_retry(self.config.connect_retry_time, &mut self.rng)
    }

    pub(super) fn pause(&self) -> Duration {
        timers::back_off(self.failures, self.config.connect_retry_time)
    }

    pub(super) fn give_up_dialing(&mut self) {
        if let Some(id) = self.attempts.dialing.take() {
            self.outputs.push_back(SessionOutput::Close(id));
        }
    }

    /// Nothing is dialled any more: a connection has got as far as OpenConfirm.
    pub(super) fn stop_attempts(&mut self) {
        self.give_up_dialing();
        self.attempts.connect_retry = None;
        self.attempts.state = State::Active;
    }

    /// The last connection is gone: through Idle back to Active, where the peer may connect at once and we try again
    /// after a pause that grows with the errors in a row (RFC 4271 §8.1.1, DampPeerOscillations).
    pub(super) fn start_over(&mut self, now: Instant, next: State, cause: &Cause) {
        if next == State::Active {
            // OpenSent and TCP lost: no error of the protocol.
            return self.wait(now, None);
        }
        self.change(State::Idle, &cause.reason);
        if !cause.wanted {
            self.failures = self.failures.saturating_add(1);
        }
        let pause = self.pause();
        self.wait(now, Some(pause));
        self.show("started again");
    }
}
